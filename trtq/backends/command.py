"""The command line of `trtexec`, and of TensorRT-RTX's `tensorrt_rtx`: a plan as options, benchmarks with one meaning.

Versions differ in what they take and in what they do unasked: up to 10.16 a benchmark copies its inputs, waits without
spinning and launches kernel by kernel; from 11 it does neither. The commands here ask for the same everywhere.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from trtq.backends import ShapeRange
from trtq.backends.dialects import Dialect
from trtq.backends.measuring import REFERENCE, BenchOptions
from trtq.backends.planner import BuildPlan
from trtq.errors import ConfigError

# What 11 and TensorRT-RTX do unasked, and older versions have to be told.
NORMALISED = ("--useCudaGraph", "--useSpinWait", "--noDataTransfers", "--separateProfileRun")
# How each is asked for where it is not the default: by older versions, and by 11 and TensorRT-RTX the other way round.
SWITCHES = {
    "cuda_graph": ("--useCudaGraph", "--noCudaGraph"),
    "spin_wait": ("--useSpinWait", "--noSpinWait"),
    "data_transfers": ("--noDataTransfers", "--includeDataTransfers"),
}
DEFAULT_ITERATIONS = 10
Command = tuple[str, ...]


def build_command(plan: BuildPlan, engine: Path) -> Command:
    """Return the command that builds `plan` into `engine` and exits.

    Raises `ConfigError` for what the plan has and this command line cannot say, naming the alternative.
    """
    dialect, options = plan.dialect, plan.spec.options
    return (
        dialect.executable,
        f"--onnx={plan.spec.onnx}",
        f"--saveEngine={engine}",
        "--skipInference" if dialect.takes("--skipInference") else "--buildOnly",
        "--profilingVerbosity=detailed",
        *_targets(plan),
        *_precision(plan),
        *_calibration(plan),
        *_limits(plan),
        *(() if options.dla_core is None else (f"--useDLACore={options.dla_core}", "--allowGPUFallback")),
        *_shapes(plan),
    )


def bench_command(
    dialect: Dialect,
    engine: Path,
    profile: Sequence[ShapeRange] = (),
    options: BenchOptions = REFERENCE,
    *,
    layers: bool = True,
) -> Command:
    """Return the command that times `engine`, which means the same in every dialect.

    By default: fixed warm-up and duration, no copies of inputs and outputs, spinning wait, one CUDA graph, the profile
    in a run of its own; raw times, profile and layers into JSON files beside the engine. profile: the shapes to time,
    the usual. layers: without, only the times are taken. Raises `ConfigError` for what this command line cannot say.
    """
    exports = {"--exportTimes": "times"}
    if layers:
        exports |= {"--exportProfile": "profile", "--exportLayerInfo": "layers"}
    files = [f"{option}={engine}.{kind}.json" for option, kind in exports.items()]
    return (
        dialect.executable,
        f"--loadEngine={engine}",
        *_regime(dialect, options),
        f"--warmUp={options.warm_up_ms:g}",
        f"--duration={options.duration_s:g}",
        *([] if options.iterations == DEFAULT_ITERATIONS else [f"--iterations={options.iterations}"]),
        *_streams(dialect, options.streams),
        "--profilingVerbosity=detailed",
        # Its manual shows the layers on the console alone.
        *(files if dialect.takes("--exportLayerInfo") else ["--dumpProfile", "--dumpLayerInfo"]),
        *([f"--shapes={_spec((one.input, one.usual) for one in profile)}"] if profile else []),
    )


def _regime(dialect: Dialect, options: BenchOptions) -> list[str]:
    turned_round = dialect.takes("--includeDataTransfers")
    wanted = {
        "cuda_graph": options.cuda_graph,
        "spin_wait": options.spin_wait,
        "data_transfers": options.data_transfers,
    }
    # The reference is what 11 does unasked: a switch is named where the wish differs from the default.
    words = [
        SWITCHES[name][turned_round]
        for name, value in wanted.items()
        if (value == getattr(REFERENCE, name)) != turned_round
    ]
    return words if turned_round else [*words, "--separateProfileRun"]


def _streams(dialect: Dialect, streams: int) -> list[str]:
    if streams == 1:
        return []
    if dialect.ahead_of_time:
        raise ConfigError(f"whether {dialect.executable} runs several streams is not in its manual; use one")
    # Came with --skipInference, in 8.6; the old word is only warned about there.
    return [f"{'--infStreams' if dialect.takes('--skipInference') else '--streams'}={streams}"]


def text(command: Command) -> str:
    """Return the command as a shell takes it."""
    return shlex.join(command)


def _targets(plan: BuildPlan) -> list[str]:
    if not plan.dialect.ahead_of_time:
        return []
    return [f"--computeCapabilities={','.join(target.removeprefix('sm') for target in plan.spec.targets)}"]


def _precision(plan: BuildPlan) -> list[str]:
    if not plan.dialect.weakly_typed:
        return []
    if plan.spec.options.strongly_typed:
        return ["--stronglyTyped"]
    return {"fp32": [], "fp16": ["--fp16"], "ptq": ["--fp16", "--int8"], "qat": ["--fp16", "--int8"]}[plan.mode]


def _calibration(plan: BuildPlan) -> list[str]:
    if plan.quantization != "implicit":
        return []
    cache = plan.spec.calibration_cache
    if cache is None:
        raise ConfigError(
            f"{plan.dialect.executable} takes a calibration cache and no images: without one it makes ranges up; "
            "calibrate with --backend trt once, or write a cache from a Q/DQ file (`trtq cache`)"
        )
    return [f"--calib={cache}"]


def _limits(plan: BuildPlan) -> list[str]:
    dialect, options = plan.dialect, plan.spec.options
    wanted = {
        "--memPoolSize": None if options.workspace_mib is None else f"workspace:{options.workspace_mib}",
        "--builderOptimizationLevel": options.level,
        "--timingCacheFile": options.timing_cache,
    }
    given = {option: value for option, value in wanted.items() if value is not None}
    for option in given:
        if not dialect.takes(option):
            raise ConfigError(
                f"whether {dialect.executable} takes {option} is not in its manual; build with --backend rtx, which "
                "sets it"
            )
    return [f"{option}={value}" for option, value in given.items()]


def _shapes(plan: BuildPlan) -> list[str]:
    profiles = plan.spec.options.profiles
    if len(profiles) > 1 and not plan.dialect.takes("--profile"):
        raise ConfigError(
            f"{plan.dialect.executable} of {plan.dialect.product} builds one shape profile and no more; build several "
            "with the Python API, or merge them into one range"
        )
    words = []
    for index, profile in enumerate(profiles):
        words += [f"--profile={index}"] if len(profiles) > 1 else []
        words += [
            f"--minShapes={_spec((one.input, one.smallest) for one in profile)}",
            f"--optShapes={_spec((one.input, one.usual) for one in profile)}",
            f"--maxShapes={_spec((one.input, one.largest) for one in profile)}",
        ]
    return words


def _spec(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    return ",".join(f"{name}:{'x'.join(map(str, shape))}" for name, shape in shapes)
