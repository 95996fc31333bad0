"""A vendor's module of one version for builds: no name that the real wheel's API table lacks can be touched.

It builds nothing real: what it proves is which names the worker touches, and in which order plans make their calls.
"""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Any

API = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "api"
TABLES = {
    "trt8.6": "tensorrt-8.6.1.json",
    "trt10.3": "tensorrt-10.3.0.json",
    "trt10.16": "tensorrt-10.16.1.11.json",
    "trt11.4": "tensorrt-11.4.0.106.json",
    "rtx": "tensorrt-rtx-1.7.1.116.json",
}
# What a member returns, where that is an object of the API again.
RETURNS = {
    "create_network": "INetworkDefinition",
    "create_builder_config": "IBuilderConfig",
    "create_optimization_profile": "IOptimizationProfile",
    "create_timing_cache": "ITimingCache",
    "get_timing_cache": "ITimingCache",
    "deserialize_cuda_engine": "ICudaEngine",
    "create_engine_inspector": "EngineInspector",
    "create_execution_context": "IExecutionContext",
    "get_error": "ParserError",
}
LAYERS = json.dumps({"Layers": ["conv"], "Bindings": ["x", "y"]})


def table(name: str) -> dict[str, Any]:
    names: dict[str, Any] = json.loads((API / TABLES[name]).read_text(encoding="utf-8"))["names"]
    return names


class Module:
    """`tensorrt` of one version; parses: whether its parser takes the file; cores: of DLA; builds: whether it does."""

    def __init__(self, name: str, *, parses: bool = True, cores: int = 2, builds: bool = True) -> None:
        self.names = table(name)
        self.__name__, self.__version__ = "tensorrt", name
        self.values = {
            "parse_from_file": parses,
            "num_errors": 0 if parses else 1,
            "num_DLA_cores": cores,
            "build_serialized_network": b"plan" if builds else None,
            "get_engine_information": LAYERS,
            "serialize": b"timings",
            "desc": "no kernel",
            "node": 3,
            "node_name": "conv",
            "node_operator": "Conv",
        }
        self.touched: set[str] = set()
        self.log: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name not in self.names:
            raise AttributeError(f"{self.__version__} has no {name}")
        self.touched.add(name)
        if "enum" in self.names[name]:
            return enum.Enum(name, {key: int(value) for key, value in self.names[name]["enum"].items()}, type=int)
        if name in ("ILogger", "IProgressMonitor") or name.startswith("IInt8"):
            return type(name, (), {})
        return Kind(self, name)


class Kind:
    """A class or function of the API: called, it gives an object; asked, it shows its members."""

    def __init__(self, module: Module, name: str) -> None:
        self._module, self._name = module, name

    def __call__(self, *arguments: Any) -> Object:
        return Object(self._module, self._name)

    def __getattr__(self, member: str) -> str:
        if member not in self._module.names[self._name]["members"]:
            raise AttributeError(f"{self._name} of {self._module.__version__} has no {member}")
        return member


class Object:
    """An object of the API: shows and takes only the members that the table gives its class."""

    def __init__(self, module: Module, kind: str) -> None:
        vars(self).update(_module=module, _kind=kind)

    def __getattr__(self, member: str) -> Any:
        self._allow(member)
        if member in ("num_errors", "num_DLA_cores"):
            return self._module.values[member]
        return lambda *arguments: self._called(member, arguments)

    def __setattr__(self, member: str, value: Any) -> None:
        self._allow(member)
        self._module.log.append(f"{self._kind}.{member} = {getattr(value, 'name', value)}")

    def _called(self, member: str, arguments: tuple[Any, ...]) -> Any:
        shown = ", ".join(str(getattr(one, "name", one)) for one in arguments if not isinstance(one, Object))
        self._module.log.append(f"{self._kind}.{member}({shown})")
        if member in RETURNS:
            return Object(self._module, RETURNS[member])
        return self._module.values.get(member)

    def _allow(self, member: str) -> None:
        if member not in self._module.names[self._kind]["members"]:
            raise AttributeError(f"{self._kind} of {self._module.__version__} has no {member}")
        self._module.touched.add(f"{self._kind}.{member}")
