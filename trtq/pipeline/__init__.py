"""The composition: from a recipe to engines and a report, resuming where it stopped."""

from trtq.pipeline.build import Step, build_onnx, build_recipe, explicit_ptq_note, parse_modes
from trtq.pipeline.result import result_rows, write_report
from trtq.pipeline.steps import accuracy

__all__ = [
    "Step",
    "accuracy",
    "build_onnx",
    "build_recipe",
    "explicit_ptq_note",
    "parse_modes",
    "result_rows",
    "write_report",
]
