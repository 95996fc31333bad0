"""What works on this machine: parts that are here, what each back end can do with them, and what is missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trtq.backends import BUILDERS
from trtq.backends.probe import Probe, Probing, is_installed
from trtq.config import did_you_mean
from trtq.errors import ConfigError, MissingBackendError
from trtq.machine import Jetson, Machine, machine
from trtq.machine.jetson import JetPack, jetpack_of
from trtq.machine.packages import version

PROBED = ("tensorrt", "tensorrt_rtx", "onnxruntime")
TORCH_MODULES = ("torch", "torchvision", "pytorch_quantization", "safetensors", "scipy")
CUDA_MODULES = ("cuda.bindings", "cuda.cudart", "pycuda")
TRTEXEC = "trtexec"
TRTEXEC_FOLDERS = ("/usr/src/tensorrt/bin", "/opt/tensorrt/bin", "/workspace/tensorrt/bin")
DRIVER_HINT = "on a machine with a GPU install its driver; in Docker give it to the container: --gpus all"
JETSON_HINT = "in Docker give the GPU to the container: --runtime nvidia"
# Without one of these a process reaches no GPU, whatever the driver's other files list: discrete, Jetson, WSL.
DEVICES = ("/dev/nvidiactl", "/dev/nvmap", "/dev/dxg")
MODES = ("fp32", "fp16", "implicit ptq", "explicit ptq", "qat", "run, bench")
_BUILDS = ("fp32", "fp16", "explicit ptq", "qat")
# What each back end needs for each thing that it can do at all. A Q/DQ file may come from anywhere: building `qat`
# needs no PyTorch, training it does.
NEEDS: dict[str, dict[str, tuple[str, ...]]] = {
    "trt": {
        **dict.fromkeys(_BUILDS, ("gpu", "tensorrt")),
        "implicit ptq": ("gpu", "tensorrt", "calibrators", "cuda-python"),
        "run, bench": ("gpu", "tensorrt", "cuda-python"),
    },
    "rtx": {**dict.fromkeys(_BUILDS, ("tensorrt-rtx",)), "run, bench": ("gpu", "tensorrt-rtx", "cuda-python")},
    "ort": dict.fromkeys((*_BUILDS, "run, bench"), ("onnxruntime",)),
    "ort-native": dict.fromkeys(MODES, ("onnxruntime",)),
    "trtexec": dict.fromkeys(MODES, ("gpu", TRTEXEC)),
}
# What works without an engine builder.
WORK: dict[str, tuple[str, ...]] = {
    "lint, unify, diff, layers": (),
    "quantize, finetune, export": ("torch",),
    "eval, calibration": ("onnxruntime",),
    "pictures": ("dot",),
}


@dataclass(frozen=True)
class Part:
    """Something that work needs: what of it is here, why it cannot be used, and what to do about that."""

    name: str
    found: str = ""
    problem: str = ""
    install: str = ""

    @property
    def works(self) -> bool:
        """Whether it is here and can be used."""
        return not self.problem


@dataclass(frozen=True)
class Ability:
    """One thing that trtq does, and the parts that it lacks here: none where it works."""

    backend: str
    does: str
    missing: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True)
class Diagnosis:
    """A machine, the parts that are on it by name, and what they suffice for."""

    machine: Machine
    parts: Mapping[str, Part]
    abilities: tuple[Ability, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON form; each ability says what to install."""
        return {
            "machine": self.machine.to_json(),
            "parts": {name: asdict(part) for name, part in self.parts.items()},
            "abilities": [
                {
                    **asdict(one),
                    "missing": list(one.missing),
                    "works": one.works,
                    "install": [self.parts[name].install for name in one.missing],
                }
                for one in self.abilities
            ],
        }

    def require(self, names: Iterable[str]) -> None:
        """Raise `MissingBackendError`, which says what to do, unless these back ends and parts work.

        A back end works where it builds. Raises `ConfigError` for a name that is neither.
        """
        needed = {**{name: (name,) for name in self.parts}, **{name: needs["qat"] for name, needs in NEEDS.items()}}
        for name in names:
            if name not in needed:
                hint = did_you_mean(name, needed) or f"; known are {', '.join(needed)}"
                raise ConfigError(f"--require {name}: is neither a back end nor a part{hint}")
            broken = [self.parts[part] for part in needed[name] if not self.parts[part].works]
            if broken:
                why = "; ".join(f"{one.name} {one.problem}: {one.install}" for one in broken)
                raise MissingBackendError(f"'{name}' does not work here: {why}")


def diagnose() -> Diagnosis:
    """Examine this machine; vendor packages are loaded in child processes alone."""
    probing = Probing(PROBED)
    here = machine(ask_driver=True)
    modules = {name for name in (*TORCH_MODULES, *CUDA_MODULES) if is_installed(name)}
    programs = {name: path for name in ("dot", TRTEXEC) if (path := find_program(name))}
    device = any(Path(name).exists() for name in DEVICES)
    return judge(here, probing.results(), modules, programs, device=device)


def judge(
    here: Machine, probes: Mapping[str, Probe], modules: set[str], programs: Mapping[str, str], *, device: bool
) -> Diagnosis:
    """Say what works on a machine of which this is known.

    probes: the installed ones of PROBED. modules: the installed ones of TORCH_MODULES and CUDA_MODULES. programs: where
    `dot` and `trtexec` are, if they are. device: whether one of DEVICES is there.
    """
    parts = {
        "gpu": _gpu(here, device),
        "tensorrt": _tensorrt(here, probes.get("tensorrt")),
        "calibrators": _calibrators(probes.get("tensorrt")),
        "tensorrt-rtx": _rtx(here, probes.get("tensorrt_rtx")),
        "onnxruntime": _onnxruntime(probes.get("onnxruntime")),
        "cuda-python": _cuda_python(modules),
        "torch": _torch(modules),
        TRTEXEC: _program(TRTEXEC, programs, _trtexec_from(here)),
        "dot": _program("dot", programs, "install graphviz (apt-get install graphviz)"),
    }
    needs = [("", does, wanted) for does, wanted in WORK.items()]
    needs += [(backend, does, wanted) for backend in BUILDERS for does, wanted in NEEDS.get(backend, {}).items()]
    return Diagnosis(
        here, parts, tuple(Ability(backend, does, _missing(wanted, parts)) for backend, does, wanted in needs)
    )


def find_program(name: str) -> str | None:
    """Return where a program is: on PATH; trtexec also where TRTEXEC says, or where NVIDIA's packages put it."""
    named = os.environ.get("TRTEXEC") if name == TRTEXEC else None
    if named is not None:
        return named if Path(named).is_file() else None
    folders = TRTEXEC_FOLDERS if name == TRTEXEC else ()
    found = shutil.which(name)
    return found or next((str(path) for one in folders if (path := Path(one) / name).is_file()), None)


def _missing(parts: Iterable[str], found: Mapping[str, Part]) -> tuple[str, ...]:
    missing = [name for name in parts if not found[name].works]
    return tuple(name for name in missing if name != "calibrators" or "tensorrt" not in missing)


def _gpu(here: Machine, device: bool) -> Part:
    names = ", ".join(f"{gpu.name} ({gpu.sm})" if gpu.sm else gpu.name for gpu in here.gpus)
    if device:
        return Part("NVIDIA GPU", names or "of unknown name")
    if not names:
        return Part("NVIDIA GPU", "", "is not there, or its driver is not", DRIVER_HINT)
    problem = "is there, and cannot be reached from here"
    return Part("NVIDIA GPU", names, problem, DRIVER_HINT if here.jetson is None else JETSON_HINT)


def _tensorrt(here: Machine, probe: Probe | None) -> Part:
    name = "TensorRT"
    if probe is not None and not probe.error:
        return Part(name, probe.version)
    if probe is None:
        return Part(name, "", "is not installed", _tensorrt_from(here))
    release = _release(here.jetson)
    if release and "undefined symbol" in probe.error:
        return Part(
            name, "", f"does not load ({probe.error}): container and host are of different L4T", _image(release)
        )
    return Part(name, "", f"does not load ({probe.error})", _loading_hint(here, probe, _tensorrt_from(here)))


def _calibrators(probe: Probe | None) -> Part:
    name = "TensorRT's calibrators"
    if probe is None or probe.error:
        return Part(name, "", "come with TensorRT up to 10", "install TensorRT 10 or earlier")
    if not probe.calibrators:
        return Part(name, "", f"are gone from TensorRT {probe.version}", "use explicit PTQ: trtq ptq, or trtq cache")
    return Part(name, "here")


def _rtx(here: Machine, probe: Probe | None) -> Part:
    name = "TensorRT-RTX"
    if here.jetson is not None:
        return Part(name, "", "is not made for Jetson", "use TensorRT: --backend trt")
    install = "pip install 'trtq[rtx]' (it comes under NVIDIA's own licence)"
    if probe is None:
        return Part(name, "", "is not installed", install)
    if probe.error:
        return Part(name, "", f"does not load ({probe.error})", _loading_hint(here, probe, install))
    return Part(name, probe.version)


def _onnxruntime(probe: Probe | None) -> Part:
    name, install = "ONNX Runtime", "pip install 'trtq[ort]'"
    if probe is None:
        return Part(name, "", "is not installed", install)
    if probe.error:
        return Part(name, "", f"does not load ({probe.error})", install)
    providers = ", ".join(one.removesuffix("ExecutionProvider") for one in probe.providers)
    return Part(name, f"{probe.version} ({providers})")


def _cuda_python(modules: set[str]) -> Part:
    here = [module for module in CUDA_MODULES if module in modules]
    if not here:
        return Part("CUDA for Python", "", "is not installed", "pip install cuda-python")
    return Part("CUDA for Python", version("cuda-python", "cuda-bindings", "pycuda") or here[0])


def _torch(modules: set[str]) -> Part:
    missing = [module for module in TORCH_MODULES if module not in modules]
    found = version("torch") or ""
    if "torch" in missing:
        return Part("PyTorch", "", "is not installed", "pip install 'trtq[torch]'")
    if missing:
        return Part("PyTorch", found, f"lacks {', '.join(missing)}", "pip install 'trtq[torch]'")
    return Part("PyTorch", found)


def _program(name: str, programs: Mapping[str, str], install: str) -> Part:
    if name in programs:
        return Part(name, programs[name])
    return Part(name, "", "is not on PATH", install)


def _release(board: Jetson | None) -> JetPack | None:
    return jetpack_of(board.l4t) if board is not None and board.l4t is not None else None


def _tensorrt_from(here: Machine) -> str:
    """Return where TensorRT for Python comes from on this machine."""
    if here.jetson is None:
        return "pip install tensorrt, or use NVIDIA's image (docs/docker.md)"
    release = _release(here.jetson)
    if release is None:
        return "install JetPack's python3-libnvinfer"
    if here.python.rpartition(".")[0] != release.python:
        return (
            f"JetPack {release.jetpack} has TensorRT {release.tensorrt} for Python {release.python}, and this is "
            f"{here.python}; {_image(release)}, or build with --backend trtexec"
        )
    return f"make the virtual environment with --system-site-packages, so that it sees JetPack's; or {_image(release)}"


def _image(release: JetPack) -> str:
    if release.image is None:
        cuda = "nvcr.io/nvidia/cuda of CUDA " + release.cuda
        return f"in Docker start from {cuda}: no l4t-tensorrt image is known for JetPack {release.jetpack}"
    return f"in Docker start from {release.image}, which fits L4T {release.l4t}"


def _trtexec_from(here: Machine) -> str:
    if here.jetson is not None:
        return "install JetPack's libnvinfer-bin (apt-get install libnvinfer-bin)"
    return "it is in NVIDIA's TensorRT image and its deb and tar packages, not in the pip ones"


def _loading_hint(here: Machine, probe: Probe, install: str) -> str:
    if "libcuda.so" not in probe.error:
        return f"install it again: {install}"
    return DRIVER_HINT if here.jetson is None else JETSON_HINT
