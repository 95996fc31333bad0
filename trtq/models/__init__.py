"""Where a network comes from: the zoo or any `package.module:callable`, with a checkpoint if there is one.

ZOO lists the names that a recipe can use; each value is imported when asked for.
"""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from trtq.config import ModelSpec, did_you_mean
from trtq.errors import ConfigError, ModelError

ZOO: dict[str, str] = {
    "yolov7-tiny": "trtq.models.yolov7:yolov7_tiny",
    "yolov7": "trtq.models.yolov7:yolov7",
    "mobilenet_v2": "torchvision.models:mobilenet_v2",
    "resnet18": "torchvision.models:resnet18",
    "resnet50": "torchvision.models:resnet50",
}
PICKLE_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
# Counts batches during training; inference never reads it.
UNUSED_SUFFIX = "num_batches_tracked"
NESTED_KEYS = ("state_dict", "model", "ema")

State = Mapping[str, Tensor]


def load_model(spec: ModelSpec, checkpoint: Path | None, *, allow_pickle: bool = False) -> nn.Module:
    """Return the network in eval mode, its weights from `checkpoint` (safetensors) or as its constructor leaves them.

    float16 weights become float32. A pickled checkpoint is read with `allow_pickle` only: it can run any code.
    Raises `ConfigError` for a name, module or arguments that do not work, `ModelError` for the checkpoint.
    """
    model = _construct(spec)
    if checkpoint is not None:
        _fill(model, read_checkpoint(checkpoint, allow_pickle=allow_pickle), checkpoint)
    return model.eval()


def read_checkpoint(path: Path, *, allow_pickle: bool = False) -> dict[str, Tensor]:
    """Return a checkpoint's tensors by name, floats as float32; raises `ModelError`."""
    if not path.is_file():
        raise ModelError(f"{path}: no such checkpoint; check model.checkpoint in the recipe")
    pickled = path.suffix.lower() in PICKLE_SUFFIXES
    state = _unpickled(path, allow_pickle) if pickled else _safetensors(path)
    return {name: one.float() if one.is_floating_point() else one for name, one in state.items()}


def parameter_count(model: nn.Module) -> int:
    """Return how many trainable numbers the network holds."""
    return sum(parameter.numel() for parameter in model.parameters())


def _construct(spec: ModelSpec) -> nn.Module:
    build = _callable(spec.name)
    try:
        model = build(**spec.arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model '{spec.name}' does not take these arguments ({error})") from error
    if not isinstance(model, nn.Module):
        raise ConfigError(f"model '{spec.name}' returns {type(model).__name__}, not a torch.nn.Module")
    return model


def _callable(name: str) -> Callable[..., Any]:
    target = ZOO.get(name, name)
    module, _, attribute = target.partition(":")
    if not attribute:
        hint = did_you_mean(name, ZOO) or f"; it must be package.module:callable or one of {', '.join(ZOO)}"
        raise ConfigError(f"model '{name}' is not known{hint}")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise ConfigError(f"model '{name}': the module '{module}' has no '{attribute}'") from error
    except Exception as error:  # somebody else's module may raise anything while it is imported
        raise ConfigError(
            f"model '{name}': cannot import '{module}' ({error}); is its folder on PYTHONPATH?"
        ) from error
    if not callable(found):
        raise ConfigError(f"model '{name}': '{attribute}' is {type(found).__name__}, not callable")
    return found  # type: ignore[no-any-return]


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path}: is not a safetensors file, or damaged ({error})") from error


def _unpickled(path: Path, allow_pickle: bool) -> State:
    if not allow_pickle:
        raise ModelError(
            f"{path}: is a pickled checkpoint, which can run any code when read; "
            "convert it to safetensors, or pass --allow-pickle if you trust its origin"
        )
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling may raise anything
        raise ModelError(f"{path}: cannot be unpickled ({error})") from error
    return _state_in(content, path)


def _state_in(content: Any, path: Path) -> State:
    if isinstance(content, nn.Module):
        return content.state_dict()
    if isinstance(content, Mapping):
        if content and all(isinstance(one, Tensor) for one in content.values()):
            return content
        for key in NESTED_KEYS:
            if content.get(key) is not None:
                return _state_in(content[key], path)
    raise ModelError(f"{path}: holds no state dict, nor one under {', '.join(NESTED_KEYS)}")


def _fill(model: nn.Module, state: State, path: Path) -> None:
    expected = {name: one for name, one in model.state_dict().items() if not name.endswith(UNUSED_SUFFIX)}
    given = {name: one for name, one in state.items() if not name.endswith(UNUSED_SUFFIX)}
    complaints = _mismatches(expected, given)
    if complaints:
        more = f", and {len(complaints) - 1} more" if len(complaints) > 1 else ""
        raise ModelError(f"{path}: is a checkpoint of another network: {complaints[0]}{more}; check the recipe")
    model.load_state_dict(given, strict=False)


def _mismatches(expected: State, given: State) -> list[str]:
    missing = [f"'{name}' is missing" for name in expected if name not in given]
    unexpected = [f"'{name}' is unexpected" for name in given if name not in expected]
    shaped = [
        f"'{name}' has shape {tuple(given[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in given and given[name].shape != expected[name].shape
    ]
    return shaped + missing + unexpected
