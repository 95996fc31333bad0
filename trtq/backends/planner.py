"""The version planner: from what is wanted and what a TensorRT has to the exact API calls, or to why not.

Pure: a dry run plans for a TensorRT that is not here, and a build makes the very calls that the plan lists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trtq.backends import BuildOptions, BuildSpec, ShapeRange
from trtq.backends.calls import (
    BUILDER,
    CALIBRATOR,
    CONFIG,
    LOG,
    NETWORK,
    PARSED,
    PARSER,
    PROGRESS,
    SERIALIZED,
    TIMING_CACHE,
    VENDOR,
    Bits,
    Call,
    Held,
    Named,
)
from trtq.backends.dialects import Dialect
from trtq.backends.form import Floats, OnnxForm
from trtq.config import Mode
from trtq.errors import ConfigError

Quantization = Literal["none", "implicit", "explicit"]
MIB = 2**20
LEVELS = range(6)
# The types that a strongly typed network of each mode has to have in the file.
STRONGLY_TYPED: Mapping[Mode, Floats] = {"fp32": "float32", "fp16": "float16", "ptq": "any", "qat": "any"}
NOT_RUN = (
    "classic TensorRT builds and runs on a GPU alone: this path is planned and checked by name, not run on one yet"
)


@dataclass(frozen=True)
class BuildPlan:
    """How one TensorRT builds one network: the ONNX file that it wants, and its API calls in three parts.

    parse: up to the parsed network. configure: the builder's configuration. build: the one call that builds.
    """

    spec: BuildSpec
    mode: Mode
    dialect: Dialect
    quantization: Quantization
    form: OnnxForm
    parse: tuple[Call, ...]
    configure: tuple[Call, ...]
    build: tuple[Call, ...]
    notes: tuple[str, ...] = ()

    @property
    def calls(self) -> tuple[Call, ...]:
        """All calls, in order."""
        return (*self.parse, *self.configure, *self.build)

    def to_json(self) -> dict[str, Any]:
        """Return the plan for people's programs: calls as text."""
        return {
            "tensorrt": self.dialect.name,
            "product": self.dialect.product,
            "checked": self.dialect.checked,
            "mode": self.mode,
            "quantization": self.quantization,
            "onnx": self.form.to_json(),
            "calls": [str(call) for call in self.calls],
            "notes": list(self.notes),
        }


def plan(spec: BuildSpec, dialect: Dialect, *, quantized: bool) -> BuildPlan:
    """Return how `dialect` builds `spec`; `quantized` says whether the file holds Q/DQ nodes.

    Without a mode a file with Q/DQ nodes is taken for qat and any other one for fp32. Raises `ConfigError` for a mode
    or an option that this TensorRT does not have, naming the alternative.
    """
    mode: Mode = spec.mode or ("qat" if quantized else "fp32")
    quantization = _quantization(spec, mode, dialect, quantized)
    _check_options(spec.options, dialect)
    _check_device(spec, mode, dialect, quantization)
    for profile in spec.options.profiles:
        _check_profile(profile, spec.options.profiles[0])
    return BuildPlan(
        spec=spec,
        mode=mode,
        dialect=dialect,
        quantization=quantization,
        form=wanted_form(mode, dialect, quantization=quantization, strongly_typed=spec.options.strongly_typed),
        parse=_parse(spec, dialect),
        configure=_configure(spec, mode, dialect, quantization),
        build=(Call(BUILDER, "build_serialized_network", (Held(NETWORK), Held(CONFIG)), result=SERIALIZED),),
        notes=_notes(dialect, quantization),
    )


def wanted_form(mode: Mode, dialect: Dialect, *, quantization: Quantization, strongly_typed: bool = False) -> OnnxForm:
    """Return the form of ONNX file that `dialect` wants for a mode."""
    floats: Floats = "float32"
    if strongly_typed or not dialect.weakly_typed:
        floats = STRONGLY_TYPED[mode]
    elif mode != "fp32":
        floats = "any"
    explicit = quantization == "explicit"
    return OnnxForm(dialect.opset, explicit, dialect.weights if explicit else "float", floats)


def _quantization(spec: BuildSpec, mode: Mode, dialect: Dialect, quantized: bool) -> Quantization:
    calibration = spec.calibration_cache or spec.calibration_batches
    if quantized:
        if mode not in ("ptq", "qat"):
            raise ConfigError(
                f"{spec.onnx}: holds Q/DQ nodes, so it is no {mode} network; build it with --mode ptq or qat"
            )
        if calibration:
            raise ConfigError(
                f"{spec.onnx}: holds Q/DQ nodes, and TensorRT ignores a calibration then; leave it out, or give the "
                "float network"
            )
        return "explicit"
    if mode == "qat":
        raise ConfigError(
            f"{spec.onnx}: holds no Q/DQ nodes; qat takes them from training: export the quantized network, or use "
            "--mode ptq"
        )
    if mode != "ptq":
        return "none"
    if not dialect.has("IBuilderConfig.int8_calibrator"):
        raise ConfigError(
            f"{dialect.product} has no implicit PTQ: it quantizes what Q/DQ nodes say and nothing else; insert them "
            f"first (`trtq ptq {spec.onnx} --calibration IMAGES`), then build the result"
        )
    if not calibration:
        raise ConfigError(f"{spec.onnx}: implicit PTQ needs a calibration cache or batches of images to calibrate with")
    if spec.options.strongly_typed:
        raise ConfigError(
            "implicit PTQ chooses types by itself, which a strongly typed network forbids; leave strongly_typed out, "
            "or insert Q/DQ nodes first (`trtq ptq`)"
        )
    return "implicit"


def _check_options(options: BuildOptions, dialect: Dialect) -> None:
    if options.strongly_typed and not dialect.has("NetworkDefinitionCreationFlag.STRONGLY_TYPED"):
        raise ConfigError(
            f"{dialect.product} has no strongly typed networks; leave strongly_typed out: flags say the precision there"
        )
    if options.level is not None:
        if not dialect.has("IBuilderConfig.builder_optimization_level"):
            raise ConfigError(f"{dialect.product} has no builder optimization level; leave level out")
        if options.level not in LEVELS:
            raise ConfigError(f"the builder optimization level is {options.level}; it must be 0 to {LEVELS[-1]}")
    if options.workspace_mib is not None and options.workspace_mib <= 0:
        raise ConfigError(f"the workspace is {options.workspace_mib} MiB; it must be greater than 0")
    if options.timing_cache is not None and dialect.ahead_of_time:
        raise ConfigError(f"{dialect.product} times nothing while it builds; leave the timing cache out")


def _check_device(spec: BuildSpec, mode: Mode, dialect: Dialect, quantization: Quantization) -> None:
    core = spec.options.dla_core
    if core is None:
        return
    if dialect.no_dla is not None:
        raise ConfigError(f"{dialect.product} has no DLA: {dialect.no_dla}; leave dla_core out to build for the GPU")
    if core < 0:
        raise ConfigError(f"the DLA core is {core}; they count from 0")
    if mode == "fp32":
        raise ConfigError("DLA computes in FP16 and INT8, not in FP32; use --mode fp16 or ptq")
    if any(one.smallest != one.largest for profile in spec.options.profiles for one in profile):
        raise ConfigError("DLA takes fixed shapes alone; give one size per input, or leave dla_core out")
    if quantization == "explicit":
        raise ConfigError(
            f"{spec.onnx}: DLA does not run Q/DQ nodes; turn the file into a float network and a calibration cache "
            "(`trtq cache`) and build that with --mode ptq"
        )


def _check_profile(profile: tuple[ShapeRange, ...], first: tuple[ShapeRange, ...]) -> None:
    names = [one.input for one in profile]
    if not names or len(set(names)) < len(names) or set(names) != {one.input for one in first}:
        raise ConfigError(f"a shape profile names the inputs {names}; every profile names each dynamic input once")
    for one in profile:
        ranks = {len(one.smallest), len(one.usual), len(one.largest)}
        ordered = all(
            0 < low <= middle <= high for low, middle, high in zip(one.smallest, one.usual, one.largest, strict=False)
        )
        if len(ranks) > 1 or not ordered:
            raise ConfigError(
                f"the shapes of input '{one.input}' are {list(one.smallest)}, {list(one.usual)} and "
                f"{list(one.largest)}; give the smallest, the usual and the largest, of one rank"
            )


def _parse(spec: BuildSpec, dialect: Dialect) -> tuple[Call, ...]:
    flags = ["NetworkDefinitionCreationFlag.EXPLICIT_BATCH"]
    if spec.options.strongly_typed and dialect.weakly_typed:
        # Where there are no precision flags the network is strongly typed without being asked.
        flags.append("NetworkDefinitionCreationFlag.STRONGLY_TYPED")
    present = tuple(name for name in flags if dialect.has(name))
    return (
        # What trtexec does first: without it the parser knows no standard plugin.
        *(() if dialect.ahead_of_time else (Call(VENDOR, "init_libnvinfer_plugins", (Held(LOG), "")),)),
        Call(VENDOR, "Builder", (Held(LOG),), result=BUILDER),
        Call(BUILDER, "create_network", (Bits(present),), result=NETWORK),
        Call(VENDOR, "OnnxParser", (Held(NETWORK), Held(LOG)), result=PARSER),
        Call(PARSER, "parse_from_file", (str(spec.onnx),), result=PARSED),
    )


def _configure(spec: BuildSpec, mode: Mode, dialect: Dialect, quantization: Quantization) -> tuple[Call, ...]:
    return (
        Call(BUILDER, "create_builder_config", result=CONFIG),
        _set(CONFIG, "profiling_verbosity", Named("ProfilingVerbosity.DETAILED")),
        *_ahead_of_time(spec, dialect),
        *_limits(spec.options),
        *_precision(spec, mode, dialect),
        *_device(spec.options),
        *_profiles(spec.options),
        *_calibration(spec, quantization),
        *_timing(spec.options),
        *([_set(CONFIG, "progress_monitor", Held(PROGRESS))] if dialect.has("IBuilderConfig.progress_monitor") else []),
    )


def _ahead_of_time(spec: BuildSpec, dialect: Dialect) -> list[Call]:
    if not dialect.ahead_of_time:
        return []
    return [
        # Layers run in the order of the builder's table only without streams beside the first.
        _set(CONFIG, "max_aux_streams", 0),
        _set(CONFIG, "num_compute_capabilities", len(spec.targets)),
        *(
            Call(CONFIG, "set_compute_capability", (Named(f"ComputeCapability.{target.upper()}"), index))
            for index, target in enumerate(spec.targets)
        ),
    ]


def _limits(options: BuildOptions) -> list[Call]:
    calls = []
    if options.workspace_mib is not None:
        pool = Named("MemoryPoolType.WORKSPACE")
        calls.append(Call(CONFIG, "set_memory_pool_limit", (pool, options.workspace_mib * MIB)))
    if options.level is not None:
        calls.append(_set(CONFIG, "builder_optimization_level", options.level))
    return calls


def _precision(spec: BuildSpec, mode: Mode, dialect: Dialect) -> list[Call]:
    if spec.options.strongly_typed or not dialect.weakly_typed:
        return []
    flags = {
        "fp32": [],
        "fp16": ["BuilderFlag.FP16"],
        # What is not quantized runs in FP16: int8 beside float32 pays for a conversion at every border.
        "ptq": ["BuilderFlag.FP16", "BuilderFlag.INT8"],
        "qat": ["BuilderFlag.FP16", "BuilderFlag.INT8"],
    }[mode]
    return [Call(CONFIG, "set_flag", (Named(flag),)) for flag in flags]


def _device(options: BuildOptions) -> list[Call]:
    if options.dla_core is None:
        return []
    return [
        _set(CONFIG, "default_device_type", Named("DeviceType.DLA")),
        _set(CONFIG, "DLA_core", options.dla_core),
        Call(CONFIG, "set_flag", (Named("BuilderFlag.GPU_FALLBACK"),)),
    ]


def _profiles(options: BuildOptions) -> list[Call]:
    calls = []
    for index, profile in enumerate(options.profiles):
        name = f"profile{index}"
        calls.append(Call(BUILDER, "create_optimization_profile", result=name))
        calls += [Call(name, "set_shape", (one.input, one.smallest, one.usual, one.largest)) for one in profile]
        calls.append(Call(CONFIG, "add_optimization_profile", (Held(name),)))
    return calls


def _calibration(spec: BuildSpec, quantization: Quantization) -> list[Call]:
    if quantization != "implicit":
        return []
    profile = [Call(CONFIG, "set_calibration_profile", (Held("profile0"),))] if spec.options.profiles else []
    return [*profile, _set(CONFIG, "int8_calibrator", Held(CALIBRATOR))]


def _timing(options: BuildOptions) -> list[Call]:
    if options.timing_cache is None:
        return []
    return [
        Call(CONFIG, "create_timing_cache", (Held(TIMING_CACHE),), result="timing_cache"),
        Call(CONFIG, "set_timing_cache", (Held("timing_cache"), False)),
    ]


def _notes(dialect: Dialect, quantization: Quantization) -> tuple[str, ...]:
    notes = [] if dialect.ahead_of_time else [NOT_RUN]
    if quantization == "implicit":
        notes.append("implicit PTQ lets TensorRT choose by timing which layers run in int8; it may be none")
    return tuple(notes)


def _set(receiver: str, attribute: str, value: Named | Held | int) -> Call:
    return Call(receiver, attribute, (value,), sets=True)
