"""The signals of a layer graph: the few figures that react when quantizers are in the wrong place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trtq.layers import kinds
from trtq.layers.graph import Layer, Origin, Signals


def signals(layers: Sequence[Layer], origin: Origin, *, conversions_known: bool = True) -> Signals:
    """Compute the signals of layers in execution order.

    Double writes and requantizing kernels are TensorRT-RTX's, read off generated kernels: None for other origins.
    Leftover conversions do not exist there, nor where `conversions_known` says that the format cannot tell them.
    Where a tensor's dimensions or dtype are not known, the figures that need them are None.
    """
    compiled = origin == "compiled"
    has_tensors = any(layer.inputs or layer.outputs for layer in layers)
    return Signals(
        layers=len(layers),
        conversions=None if compiled or not conversions_known else _count(map(kinds.is_conversion, layers)),
        double_writes=_count(map(kinds.writes_twice, layers)) if compiled else None,
        requantizes=_count(map(kinds.requantizes, layers)) if compiled else None,
        float_writes=_float_writes(layers) if has_tensors else None,
        traffic_bytes=traffic_bytes(layers) if has_tensors else None,
        int8_share=_int8_share(layers),
        time_us=total_time_us(layers),
    )


def traffic_bytes(layers: Iterable[Layer]) -> int | None:
    """Return the bytes of all activations read and written, weights excluded; None when a size is not known.

    A proxy, not a time: caches, halos and scratch memory are left out. A layer that launches no kernel moves nothing.
    """
    total = 0
    for layer in layers:
        if kinds.is_idle(layer):
            continue
        for tensor in (*layer.inputs, *layer.outputs):
            if tensor.size_bytes is None:
                return None
            total += tensor.size_bytes
    return total


def total_time_us(layers: Iterable[Layer]) -> float | None:
    """Return the sum of the layers' times in microseconds, None where none has one.

    Not a latency: the profiler waits after each layer, and layers on several streams overlap.
    """
    times = [layer.time_us for layer in layers if layer.time_us is not None]
    return sum(times) if times else None


def _count(flags: Iterable[bool]) -> int:
    return sum(flags)


def _float_writes(layers: Sequence[Layer]) -> int:
    return sum(kinds.is_float(tensor) for layer in layers for tensor in layer.outputs if not kinds.is_idle(layer))


def _int8_share(layers: Sequence[Layer]) -> float | None:
    precisions = [kinds.runs_int8(layer) for layer in layers if kinds.is_compute(layer)]
    if not precisions or None in precisions:
        return None
    return sum(map(bool, precisions)) / len(precisions)
