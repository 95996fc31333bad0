"""Post-training quantization of a float ONNX: ranges streamed through ONNX Runtime, Q/DQ insertion."""

from trtq.ptq.audit import Audit, audit
from trtq.ptq.batches import write_batches
from trtq.ptq.cache import CalibrationCache, cache_text, header_version, parse_cache, read_cache, write_cache
from trtq.ptq.cache_to_qdq import Converted, cache_to_qdq
from trtq.ptq.calibrators import amax_of
from trtq.ptq.collect import collect_histograms
from trtq.ptq.histogram import Histogram
from trtq.ptq.insert import Insertion, activations, insert, scale_groups
from trtq.ptq.observe import input_shape, observe
from trtq.ptq.qdq_to_cache import Extracted, qdq_to_cache
from trtq.ptq.quantize import Calibrated, calibrate, load_float, quantize_file, save_quantized
from trtq.ptq.ranges import collect_max, max_of

__all__ = [
    "Audit",
    "Calibrated",
    "CalibrationCache",
    "Converted",
    "Extracted",
    "Histogram",
    "Insertion",
    "activations",
    "amax_of",
    "audit",
    "cache_text",
    "cache_to_qdq",
    "calibrate",
    "collect_histograms",
    "collect_max",
    "header_version",
    "input_shape",
    "insert",
    "load_float",
    "max_of",
    "observe",
    "parse_cache",
    "qdq_to_cache",
    "quantize_file",
    "read_cache",
    "save_quantized",
    "scale_groups",
    "write_batches",
    "write_cache",
]
