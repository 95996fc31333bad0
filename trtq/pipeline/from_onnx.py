"""From an ONNX file to engines: which back ends, the file in the form that they take, and nothing built twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from trtq import backends, files, ptq, qdq
from trtq.backends import BuildOptions, BuildSpec, form, manifest, onnx_file
from trtq.backends.dialects import Dialect
from trtq.backends.form import OnnxForm
from trtq.backends.manifest import Identity
from trtq.backends.onnx_file import Source
from trtq.config import Calibrator, Mode, load_recipe
from trtq.data.images import load_images
from trtq.errors import ConfigError, MissingBackendError, ModelError
from trtq.machine import Machine, machine
from trtq.pipeline import calibration, engine, preflight
from trtq.pipeline.preflight import Passed
from trtq.qdq.fp16 import fp16_file

AUTO = "auto"
# Where nobody named a target: what the back ends that build ahead of time build for.
TARGETS = ("sm86",)


@dataclass(frozen=True)
class Request:
    """What `trtq build MODEL.onnx` is asked for.

    mode: None builds the file as it is. calibration: images to quantize a float network with, as
    `data.images.load_images` takes them; only mode "ptq" reads them. fix: mend what preflight would refuse. half:
    what is not quantized in FP16. implicit: leave quantizing a float network to the back end's own calibrator, which
    calibration_cache does too: it holds the ranges of an earlier calibration.
    """

    model: Path
    folder: Path
    backend: str = AUTO
    mode: Mode | None = None
    targets: tuple[str, ...] = ()
    calibration: Path | None = None
    calibrator: Calibrator = "mse"
    exclude: tuple[str, ...] = ()
    fix: bool = False
    implicit: bool = False
    calibration_cache: Path | None = None
    half: bool = False
    options: BuildOptions = field(default_factory=BuildOptions)


@dataclass(frozen=True)
class Built:
    """Engines, in the order of the back ends; `because` says why these, where nobody named one."""

    because: str | None
    engines: tuple[Mapping[str, Any], ...]


def choose(here: Machine) -> tuple[tuple[str, ...], str]:
    """Return the back ends for this machine and why; raises `MissingBackendError` where none is installed."""
    flavours, packages = dict(here.tensorrt), dict(here.packages)
    if here.gpus and "tensorrt" in flavours and "trt" in backends.BUILDERS:
        return ("trt",), f"TensorRT {flavours['tensorrt']} and {here.gpus[0].name} are here"
    reason = "no TensorRT here" if "tensorrt" not in flavours else "no GPU for TensorRT here"
    found = {"rtx": "tensorrt-rtx" in flavours, "ort": "onnxruntime" in packages}
    if not any(found.values()):
        raise MissingBackendError(f"{reason}, and nothing else that builds; run `pip install 'trtq[rtx,ort]'`")
    words = {"rtx": "TensorRT-RTX builds ahead of time", "ort": "ONNX Runtime runs on this CPU"}
    chosen = tuple(name for name, there in found.items() if there)
    return chosen, f"{reason}: {' and '.join(words[name] for name in chosen)}"


def build_onnx(
    request: Request,
    *,
    progress: backends.Progress | None = None,
    calibrating: Callable[[int, int], None] | None = None,
    waiting: Callable[[], None] = lambda: None,
) -> Built:
    """Build an ONNX file into the request's folder, unless an equal request has: `built` in an engine's facts tells.

    One process builds into a folder at a time; `waiting` is called where another one is. calibrating: called with the
    batches done and of how many. Raises what preflight and the back ends raise, `ConfigError` for a mode that the file
    cannot have, `DataError` for images.
    """
    because = None
    names: tuple[str, ...] = (request.backend,)
    if request.backend == AUTO:
        names, because = choose(machine())
    builders = [backends.builder(name) for name in names]
    source = onnx_file.read(request.model)
    request = replace(request, mode=_mode(request, form.form_of(source.network)))
    wanted = [_wanted(builder, request, source) for builder in builders]
    built = [one.finished() for one in wanted]
    if None in built:
        # Before a folder is made: a file that is refused leaves nothing behind.
        passed = {} if request.fix else {one.builder.NAME: one.preflight(source) for one in wanted}
        del source  # it is as large as its file, and a builder needs the memory
        with files.locked(request.folder, waiting):
            prepared = _Prepared(request, calibrating)
            built = [one.finished() or one.build(prepared, passed.get(one.builder.NAME), progress) for one in wanted]
    return Built(because, tuple(filter(None, built)))


@dataclass(frozen=True)
class _Wanted:
    """One engine of a request: `identity` is of the files that were given, not of those prepared from them."""

    builder: backends.Builder
    spec: BuildSpec
    identity: Identity
    folder: Path

    def finished(self) -> dict[str, Any] | None:
        """Return the engine's facts where it is there already."""
        plan = self.folder / self.builder.PLAN_NAME
        return {**manifest.read(plan).facts, "built": False} if manifest.is_current(plan, self.identity) else None

    def preflight(self, source: Source) -> Passed:
        """Return what preflight says of the file that was given; raises `ModelError` where it is refused."""
        return preflight.check(self.spec, self.builder.NAME, self.builder.version(), source)

    def build(self, prepared: _Prepared, passed: Passed | None, progress: backends.Progress | None) -> dict[str, Any]:
        """Build the engine and return its facts; `passed` is what preflight said of the file that was given."""
        engine.sweep(self.builder, self.folder)
        spec = self.spec if passed is None else passed.spec
        source = prepared.file(self.builder, spec)
        profiles = self.spec.options.profiles
        batch = profiles[0][0].usual[0] if profiles else None
        with calibration.saved(prepared.images(self.builder, source), batch) as batches:
            facts = engine.build_engine(
                self.builder,
                replace(spec, onnx=source, calibration_batches=batches),
                self.folder,
                identity=self.identity,
                findings=passed.findings if passed is not None and source == spec.onnx else None,
                progress=progress,
            )
        return {**facts, "built": True}


def _wanted(builder: backends.Builder, request: Request, source: Source) -> _Wanted:
    targets = request.targets or TARGETS if builder.HAS_TARGETS else ()
    if _implicit(request) and not (builder.HAS_IMPLICIT_PTQ or builder.NAME == "trtexec"):
        builder.version()  # where it is not installed at all, that comes first
        raise ConfigError(
            f"{builder.NAME} has no implicit PTQ here: it quantizes what Q/DQ nodes say and nothing else; leave "
            "--implicit and --calibration-cache out, and they are inserted"
        )
    spec = BuildSpec(request.model, targets, request.mode, request.options, request.calibration_cache)
    return _Wanted(builder, spec, _identity(builder, spec, request, source), request.folder)


def _mode(request: Request, found: OnnxForm) -> Mode:
    """Return the mode that was asked for, or the one that the file is in; raises `ConfigError` where they disagree."""
    if request.mode is None:
        return "ptq" if found.quantizers else "fp16" if found.floats == "float16" else "fp32"
    if found.quantizers and request.mode in ("fp32", "fp16"):
        raise ConfigError(
            f"{request.model}: holds Q/DQ nodes, so it is no {request.mode} network; give the float network, or build "
            "it as ptq or qat (with --half, what is not quantized runs in FP16)"
        )
    if request.mode == "qat" and not found.quantizers:
        raise ConfigError(
            f"{request.model}: holds no Q/DQ nodes, which qat takes from training; export the trained network, or use "
            "--mode ptq"
        )
    if request.mode == "ptq" and not found.quantizers and not (request.calibration or request.calibration_cache):
        raise ConfigError(
            f"{request.model}: is a float network, and ptq quantizes it by its ranges on images; name some with "
            "--calibration"
        )
    return request.mode


def _identity(builder: backends.Builder, spec: BuildSpec, request: Request, source: Source) -> Identity:
    """Return the identity of what was asked for: of the files that were given, not of those prepared from them."""
    found = engine.identify(builder, spec, source=source)
    inputs, options = dict(found.inputs), {**found.options, "fix": request.fix, "half": request.half}
    implicit = _implicit(request)
    if request.calibration is not None and (implicit or calibration.wanted(builder.NAME, spec.mode)):
        inputs["calibration"] = _images_hash(request.calibration)
    if not implicit and _quantizes(spec, form.form_of(source.network)):
        assert request.calibration is not None
        inputs["calibration"] = _images_hash(request.calibration)
        options |= {"calibrator": request.calibrator, "exclude": list(request.exclude)}
    return replace(found, inputs=inputs, options=options)


def _images_hash(calibration: Path) -> str:
    recipe = load_recipe(calibration) if calibration.suffix == ".toml" else None
    if recipe is None or recipe.data.path is None:
        return manifest.hash_of(calibration)
    return manifest.hash_of(calibration) + manifest.hash_of(recipe.path.parent / recipe.data.path)


def _implicit(request: Request) -> bool:
    return request.implicit or request.calibration_cache is not None


def _quantizes(spec: BuildSpec, found: OnnxForm) -> bool:
    return spec.mode == "ptq" and not found.quantizers


def _form(spec: BuildSpec, source: Path) -> OnnxForm:
    """Return the form of a file: the one that the spec names, as far as that is known, or one made of it."""
    if spec.known is not None and spec.known.holds(source):
        return spec.known.form
    return form.form_of(onnx_file.load(source))


class _Prepared:
    """The file in the form that a back end takes, each made once: mended, quantized, cast, in the request's folder."""

    def __init__(self, request: Request, calibrating: Callable[[int, int], None] | None) -> None:
        self._request = request
        self._calibrating = calibrating
        self._made: dict[Any, Path] = {}

    def file(self, builder: backends.Builder, spec: BuildSpec) -> Path:
        """Return the file to build, with what was asked for done to it."""
        source = spec.onnx
        if self._request.fix and builder.NAME not in preflight.LENIENT:
            source = self._once("mended", source, lambda target: self._mend(builder, spec, target))
        if not _implicit(self._request) and _quantizes(spec, _form(spec, source)):
            source = self._once("ptq", source, self._quantize(builder, source))
        if self._casts(builder, spec, source):
            source = self._once("fp16", source, self._cast(source))
        return source

    def images(self, builder: backends.Builder, source: Path) -> Iterable[npt.NDArray[Any]] | None:
        """Return the calibration images for a back end that looks for ranges itself, None for any other."""
        given = self._request.calibration
        wanted = _implicit(self._request) or calibration.wanted(builder.NAME, self._request.mode)
        if given is None or not wanted:
            return None
        return load_images(given, _input_shape(source))

    def _once(self, name: str, source: Path, make: Callable[[Path], object]) -> Path:
        key = (name, source)
        if key not in self._made:
            target = self._request.folder / f"{self._request.model.stem}.{name}.onnx"
            files.sweep(target)
            make(target)
            self._made[key] = target
        return self._made[key]

    def _mend(self, builder: backends.Builder, spec: BuildSpec, target: Path) -> None:
        onnx_file.check(spec.onnx)
        model = qdq.load(spec.onnx)
        preflight.mend(model, builder.NAME, builder.version(), spec.targets)
        qdq.save(model, target)

    def _quantize(self, builder: backends.Builder, source: Path) -> Callable[[Path], object]:
        calibration = self._request.calibration
        assert calibration is not None
        return lambda target: ptq.quantize_file(
            source,
            target,
            load_images(calibration, _input_shape(source)),
            calibrator=self._request.calibrator,
            exclude=self._request.exclude,
            weights=dialect.weights if (dialect := _dialect(builder)) else "int8",
            progress=self._calibrating,
        )

    def _casts(self, builder: backends.Builder, spec: BuildSpec, source: Path) -> bool:
        """Tell whether FP16 is wanted, is not there, and has to come from the file: some TensorRT are told by flags."""
        wanted, dialect = spec.mode == "fp16" or self._request.half, _dialect(builder)
        typed = dialect is None or spec.options.strongly_typed or not dialect.weakly_typed
        return wanted and typed and _form(spec, source).floats == "float32"

    def _cast(self, source: Path) -> Callable[[Path], object]:
        return lambda target: fp16_file(source, target)


def _dialect(builder: backends.Builder) -> Dialect | None:
    """Return what a back end's version can do where versions differ in that, None for a back end of one kind."""
    ask: Callable[[], Dialect] | None = getattr(builder, "dialect", None)
    return None if ask is None else ask()


def _input_shape(path: Path) -> tuple[int, ...]:
    inputs = qdq.load(path).graph.inputs
    if len(inputs) != 1 or inputs[0].shape is None:
        raise ModelError(f"{path}: has {len(inputs)} inputs; images calibrate a network of one input of known shape")
    return tuple(dim if isinstance(dim, int) else -1 for dim in inputs[0].shape)
