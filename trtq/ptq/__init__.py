"""Post-training quantization of a float ONNX: ranges streamed through ONNX Runtime, Q/DQ insertion."""

from trtq.ptq.insert import Insertion, insert, quantize_float
from trtq.ptq.observe import input_shape, observe
from trtq.ptq.placement import activations
from trtq.ptq.ranges import collect_max, max_of

__all__ = ["Insertion", "activations", "collect_max", "input_shape", "insert", "max_of", "observe", "quantize_float"]
