"""What the training scripts share: one loop of a fixed number of iterations, and a checkpoint with its record."""

from __future__ import annotations

import argparse
import dataclasses
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from trtq import data, files
from trtq.config import Recipe, load_recipe
from trtq.data import Dataset, Sample
from trtq.evaluate import evaluate
from trtq.models import load_model, parameter_count

WEIGHT_DECAY = 0.02
LARGEST_GRADIENT = 10.0
WARMUP_ITERATIONS = 100
LARGEST_CHECKPOINT_MIB = 3
REPORT_EVERY = 100

Loss = Callable[[Any, list[Sample]], Tensor]


def arguments(description: str, recipe: str, iterations: int, learning_rate: float) -> argparse.Namespace:
    """Read the command line that every training script has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--recipe", type=Path, default=Path(recipe), help="network, data, seed and threads")
    parser.add_argument("--iterations", type=int, default=iterations)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--threads", type=int, help="another number than the recipe's; 1 is faster on a busy machine")
    parser.add_argument("--width", type=float, help="another width than the recipe's")
    parser.add_argument("--out", type=Path, help="checkpoint to write; the recipe's own by default")
    return parser.parse_args()


def resized(recipe: Recipe, argument: str, width: float | None) -> Recipe:
    """Return the recipe with another width, given the name of the network's argument for it."""
    if width is None:
        return recipe
    model = dataclasses.replace(recipe.model, arguments={**recipe.model.arguments, argument: width})
    return dataclasses.replace(recipe, model=model)


def run(options: argparse.Namespace, width_argument: str, images: Callable[[Recipe, int], Dataset], loss: Loss) -> None:
    """Train the recipe's network on `images(recipe, count)` by `loss`, evaluate what was stored, write its record."""
    recipe = resized(load_recipe(options.recipe), width_argument, options.width)
    path = options.out or recipe.checkpoint
    assert path is not None, "the recipe names no checkpoint; give --out"
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(options.threads or recipe.threads)
    model = load_model(recipe.model, None)
    started = time.perf_counter()
    source = images(recipe, options.iterations * recipe.data.batch)
    losses = train(
        model,
        source,
        loss,
        batch=recipe.data.batch,
        iterations=options.iterations,
        learning_rate=options.learning_rate,
    )
    seconds = time.perf_counter() - started
    store(model, path)
    accuracy = measured(recipe, path)
    print(accuracy, flush=True)
    record = {
        "accuracy": accuracy,
        "arguments": recipe.model.arguments,
        "batch": recipe.data.batch,
        "command": shlex.join(["python", *sys.argv]),
        "iterations": options.iterations,
        "learning_rate": options.learning_rate,
        "losses": losses,
        "machine": {"cpu": cpu(), "python": platform.python_version(), "threads": torch.get_num_threads()},
        "model": recipe.model.name,
        "parameters": parameter_count(model),
        "seconds": round(seconds),
        "seed": recipe.seed,
        "torch": torch.__version__,
        "tried": tried(path.with_suffix(".training.json"), width_argument, recipe.model.arguments[width_argument]),
    }
    files.write_json(path.with_suffix(".training.json"), record)


def train(
    model: nn.Module, source: Dataset, loss: Loss, *, batch: int, iterations: int, learning_rate: float
) -> list[tuple[int, float]]:
    """Train in place with AdamW, warm-up and a cosine schedule; return the mean loss of every 100 iterations."""
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: rate(done, iterations))
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    losses: list[tuple[int, float]] = []
    recent: list[float] = []
    for iteration, samples in enumerate(loaded(source, batch), start=1):
        optimizer.zero_grad()
        value = loss(model(tensor(samples)), samples)
        torch.autograd.backward(value)
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        recent.append(value.item())
        if iteration % REPORT_EVERY == 0 or iteration == iterations:
            losses.append((iteration, round(float(np.mean(recent)), 4)))
            print(f"{iteration}/{iterations} loss {losses[-1][1]}", flush=True)
            recent.clear()
    model.eval()
    return losses


def rate(done: int, iterations: int) -> float:
    """Return the learning rate's factor: linear warm-up, then a cosine down to 0."""
    warm = min(1.0, (done + 1) / WARMUP_ITERATIONS)
    return warm * 0.5 * (1 + math.cos(math.pi * min(1.0, done / iterations)))


def loaded(source: Dataset, batch: int) -> Iterable[list[Sample]]:
    """Return batches in order, prepared by another process while this one trains."""
    return torch.utils.data.DataLoader(source, batch, num_workers=1, collate_fn=list, drop_last=True)  # type: ignore[arg-type]


def tensor(samples: list[Sample]) -> Tensor:
    """Return the images as float32 (n, 3, h, w), in the memory order that is faster to train on a CPU."""
    images = torch.from_numpy(np.stack([sample.image for sample in samples]))
    return images.to(memory_format=torch.channels_last)


def store(model: nn.Module, path: Path) -> None:
    """Write the weights as float16 safetensors, without what inference never reads."""
    kept = {name: one for name, one in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    content = save({name: one.half().contiguous() for name, one in kept.items()})
    assert len(content) <= LARGEST_CHECKPOINT_MIB << 20, f"{path}: {len(content)} bytes are too many to ship"
    files.write_bytes(path, content)


def measured(recipe: Recipe, path: Path) -> dict[str, float | int]:
    """Return the accuracy of the stored checkpoint, float16 rounding included, on the validation images."""
    model: Any = load_model(recipe.model, path)
    spec = model.decode_spec() if hasattr(model, "decode_spec") else None
    validation = data.load(recipe.data, "validation", recipe.seed, recipe.path.parent)

    @torch.inference_mode()
    def outputs(images: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        raw = model(torch.from_numpy(images))
        return [one.numpy() for one in (raw if isinstance(raw, tuple) else (raw,))]

    return evaluate(outputs, validation, batch=recipe.data.batch, decode=spec)


def tried(path: Path, width_argument: str, width: float) -> list[dict[str, Any]]:
    """Return what an earlier record tells about other widths, its own and those that it lists."""
    if not path.is_file():
        return []
    earlier = files.read_json(path)
    own = {key: earlier[key] for key in ("accuracy", "iterations", "parameters", "seconds")}
    others = [*earlier["tried"], {"width": earlier["arguments"][width_argument], **own}]
    return [other for other in others if other["width"] != width]


def cpu() -> str:
    """Return the processor's name."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
