"""TensorRT's documented Q/DQ processing as a prediction: Q/DQ ONNX in, layer graph out."""

from trtq.predict.predictor import VALIDATED_ON, predict

__all__ = ["VALIDATED_ON", "predict"]
