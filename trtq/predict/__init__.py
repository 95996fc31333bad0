"""TensorRT's documented Q/DQ processing as a prediction: Q/DQ ONNX in, layer graph out."""

from trtq.predict.predictor import MODES, VALIDATED_ON, Mode, Prediction, predict, predict_types

__all__ = ["MODES", "VALIDATED_ON", "Mode", "Prediction", "predict", "predict_types"]
