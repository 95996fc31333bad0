"""What the golden file of the planner lists: one network, every dialect, every mode; run, it prints the file anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from trtq.backends import BuildOptions, BuildSpec, ShapeRange, command, planner
from trtq.backends.dialects import DIALECTS, Dialect
from trtq.config import Mode
from trtq.errors import ConfigError

FLOAT, QUANTIZED = Path("float.onnx"), Path("quantized.onnx")
ENGINE = Path("engine.plan")
CACHE, BATCHES, TIMING = Path("calibration.cache"), Path("batches"), Path("timing.cache")


def batches(smallest: int, usual: int, largest: int) -> tuple[ShapeRange, ...]:
    return (ShapeRange("images", (smallest, 3, 64, 64), (usual, 3, 64, 64), (largest, 3, 64, 64)),)


@dataclass(frozen=True)
class Case:
    name: str
    mode: Mode
    quantized: bool = False
    options: BuildOptions = field(default_factory=BuildOptions)
    cache: Path | None = None
    images: Path | None = None

    def spec(self, dialect: Dialect) -> BuildSpec:
        return BuildSpec(
            onnx=QUANTIZED if self.quantized else FLOAT,
            targets=("sm86", "sm89") if dialect.ahead_of_time else (),
            mode=self.mode,
            options=self.options,
            calibration_cache=self.cache,
            calibration_batches=self.images,
        )


CASES = (
    Case("fp32", "fp32"),
    Case("fp16", "fp16"),
    Case("ptq, implicit", "ptq", cache=CACHE),
    Case("ptq, explicit", "ptq", quantized=True),
    Case("qat", "qat", quantized=True),
    Case("qat, strongly typed", "qat", quantized=True, options=BuildOptions(strongly_typed=True)),
    Case("fp16, one dynamic batch", "fp16", options=BuildOptions(profiles=(batches(1, 8, 16),))),
    Case(
        "ptq, implicit from images, two ranges of batches",
        "ptq",
        images=BATCHES,
        options=BuildOptions(profiles=(batches(1, 1, 1), batches(2, 8, 16))),
    ),
    Case("fp16 on DLA", "fp16", options=BuildOptions(dla_core=0)),
    Case("ptq, implicit on DLA", "ptq", cache=CACHE, options=BuildOptions(dla_core=1)),
    Case("qat on DLA", "qat", quantized=True, options=BuildOptions(dla_core=0)),
    Case("fp16 in 2 GiB", "fp16", options=BuildOptions(workspace_mib=2048)),
    Case("fp16, level 5", "fp16", options=BuildOptions(level=5)),
    Case("fp16, timing cache", "fp16", options=BuildOptions(timing_cache=TIMING)),
)


def lines() -> Iterator[str]:
    """Yield the golden file: calls and commands, or the sentence that says why not."""
    for dialect in DIALECTS.values():
        yield f"==== {dialect.name}: {dialect.product} ({dialect.checked})"
        yield "bench: " + command.text(command.bench_command(dialect, ENGINE))
        for case in CASES:
            yield f"---- {dialect.name}, {case.name}"
            yield from _case(dialect, case)


def _case(dialect: Dialect, case: Case) -> Iterator[str]:
    try:
        plan = planner.plan(case.spec(dialect), dialect, quantized=case.quantized)
    except ConfigError as error:
        yield f"refused: {error}"
        return
    yield f"onnx: {plan.form}"
    yield from (str(call) for call in plan.calls)
    try:
        yield "$ " + command.text(command.build_command(plan, ENGINE))
    except ConfigError as error:
        yield f"no command: {error}"


if __name__ == "__main__":
    print("\n".join(lines()))
