"""trtq: PyTorch networks to INT8 TensorRT engines, and why they are as fast as they are."""

__version__ = "0.1.0"
