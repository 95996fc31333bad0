"""Q/DQ ONNX: reading it in the words that the rules use, scale groups, unify, cleaning after export."""

from trtq.qdq.changes import Edit
from trtq.qdq.clean import clean, store_int8_weights
from trtq.qdq.fp16 import Casting, Kept, float_tensors, fp16_file, to_fp16
from trtq.qdq.groups import Member, ScaleGroup, groups
from trtq.qdq.measure import Measured, OutputChange
from trtq.qdq.model import load, save
from trtq.qdq.statistics import Observe, Statistics
from trtq.qdq.unify import Choice, UnifiedGroup, UnifyReport, unify, unify_file

__all__ = [
    "Casting",
    "Choice",
    "Edit",
    "Kept",
    "Measured",
    "Member",
    "Observe",
    "OutputChange",
    "ScaleGroup",
    "Statistics",
    "UnifiedGroup",
    "UnifyReport",
    "clean",
    "float_tensors",
    "fp16_file",
    "groups",
    "load",
    "save",
    "store_int8_weights",
    "to_fp16",
    "unify",
    "unify_file",
]
