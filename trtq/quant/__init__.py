"""The PyTorch side: insert quantizers, tie them, calibrate, fine-tune, export."""

from trtq.quant.calibrate import calibrate
from trtq.quant.checkpoint import load_quantized, save_quantized
from trtq.quant.export import export
from trtq.quant.finetune import finetune
from trtq.quant.insert import Quantized, fold, insert
from trtq.quant.stages import export_recipe, finetune_recipe, quantize_recipe
from trtq.quant.tie import tie

__all__ = [
    "Quantized",
    "calibrate",
    "export",
    "export_recipe",
    "finetune",
    "finetune_recipe",
    "fold",
    "insert",
    "load_quantized",
    "quantize_recipe",
    "save_quantized",
    "tie",
]
