"""API calls as data: what a plan is made of, how it reads, and how it travels to the process that makes the calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VENDOR = "trt"
# The names under which a plan's calls find what the caller brings.
LOG, PROGRESS, CALIBRATOR, TIMING_CACHE = "log", "progress", "calibrator", "timing_cache_bytes"
# The names under which they leave what the caller needs.
NETWORK, PARSER, PARSED, CONFIG, BUILDER, SERIALIZED = "network", "parser", "parsed", "config", "builder", "serialized"


@dataclass(frozen=True)
class Named:
    """A member of the vendor's module, such as `BuilderFlag.FP16`."""

    path: str

    def __str__(self) -> str:
        return f"{VENDOR}.{self.path}"


@dataclass(frozen=True)
class Bits:
    """A bit mask of members of the vendor's module: `1 << int(member)` of each; none is 0."""

    paths: tuple[str, ...]

    def __str__(self) -> str:
        return " | ".join(f"1 << {VENDOR}.{path}" for path in self.paths) or "0"


@dataclass(frozen=True)
class Held:
    """An object that an earlier call left under a name, or that the caller gave."""

    name: str

    def __str__(self) -> str:
        return self.name


Argument = Named | Bits | Held | bool | int | float | str | tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """Call `receiver.attribute(arguments)`, or set the attribute to the one argument; keep the result by name."""

    receiver: str
    attribute: str
    arguments: tuple[Argument, ...] = ()
    sets: bool = False
    result: str | None = None

    def __str__(self) -> str:
        arguments = ", ".join(_text(one) for one in self.arguments)
        if self.sets:
            return f"{self.receiver}.{self.attribute} = {arguments}"
        prefix = f"{self.result} = " if self.result else ""
        return f"{prefix}{self.receiver}.{self.attribute}({arguments})"

    def to_json(self) -> list[Any]:
        """Return the JSON form, which `from_json` reads."""
        return [self.receiver, self.attribute, [_to_json(one) for one in self.arguments], self.sets, self.result]


def from_json(value: Sequence[Any]) -> Call:
    """Return the call that `to_json` wrote."""
    receiver, attribute, arguments, sets, result = value
    return Call(receiver, attribute, tuple(_from_json(one) for one in arguments), sets, result)


def execute(vendor: Any, calls: Sequence[Call], held: Mapping[str, Any]) -> dict[str, Any]:
    """Make the calls in order against a TensorRT or TensorRT-RTX module; return `held` and all named results.

    Raises what the module raises: `AttributeError` for a name that it does not have.
    """
    objects = {VENDOR: vendor, **held}
    for call in calls:
        arguments = [_value(vendor, objects, one) for one in call.arguments]
        receiver = objects[call.receiver]
        if call.sets:
            setattr(receiver, call.attribute, arguments[0])
            continue
        result = getattr(receiver, call.attribute)(*arguments)
        if call.result:
            objects[call.result] = result
    return objects


def member(vendor: Any, path: str) -> Any:
    """Return a member of the vendor's module by its dotted path."""
    value = vendor
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _value(vendor: Any, objects: Mapping[str, Any], argument: Argument) -> Any:
    if isinstance(argument, Named):
        return member(vendor, argument.path)
    if isinstance(argument, Bits):
        return sum(1 << int(member(vendor, path)) for path in argument.paths)
    return objects[argument.name] if isinstance(argument, Held) else argument


def _text(argument: Argument) -> str:
    return str(argument) if isinstance(argument, (Named, Bits, Held)) else repr(argument)


_TAGS: dict[str, type[Named] | type[Held]] = {"named": Named, "held": Held}


def _to_json(argument: Argument) -> Any:
    if isinstance(argument, Named):
        return {"named": argument.path}
    if isinstance(argument, Held):
        return {"held": argument.name}
    return {"bits": list(argument.paths)} if isinstance(argument, Bits) else argument


def _from_json(value: Any) -> Argument:
    if isinstance(value, dict):
        (tag, content), *_ = value.items()
        return Bits(tuple(content)) if tag == "bits" else _TAGS[tag](content)
    return tuple(value) if isinstance(value, list) else value
