"""What each TensorRT can do, by the names that it has: one table, read by the planner and by the command line's form.

An installed TensorRT is asked for these names itself (`detect`, `from_help`); the table stands in for one that is not
installed. Nothing is derived from a version number or from the value of an enum: both renumber between majors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from trtq.config import did_you_mean
from trtq.errors import ConfigError

Weights = Literal["float", "int8"]
# The names in TensorRT's Python module that decide how it builds.
FEATURES = (
    "BuilderFlag.FP16",
    "BuilderFlag.INT8",
    "IBuilderConfig.builder_optimization_level",
    "IBuilderConfig.int8_calibrator",
    "IBuilderConfig.max_aux_streams",
    "IBuilderConfig.progress_monitor",
    "IBuilderConfig.set_compute_capability",
    "NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
    "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
)
# The options of `trtexec` that not every version takes. Options of every version are not listed.
OPTIONS = (
    "--allowGPUFallback",
    "--buildOnly",
    "--builderOptimizationLevel",
    "--calib",
    "--computeCapabilities",
    "--exportLayerInfo",
    "--fp16",
    "--includeDataTransfers",
    "--int8",
    "--memPoolSize",
    "--profile",
    "--skipInference",
    "--stronglyTyped",
    "--timingCacheFile",
    "--useDLACore",
)
# What an option of the command line tells about the library behind it.
IMPLIED = {
    "--fp16": "BuilderFlag.FP16",
    "--int8": "BuilderFlag.INT8",
    "--calib": "IBuilderConfig.int8_calibrator",
    "--stronglyTyped": "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
    "--builderOptimizationLevel": "IBuilderConfig.builder_optimization_level",
    "--computeCapabilities": "IBuilderConfig.set_compute_capability",
}
_HELP_OPTION = re.compile(r"^  (--[A-Za-z0-9]+)", re.MULTILINE)


@dataclass(frozen=True)
class Dialect:
    """One TensorRT: what it is called, the names that it has, and what its ONNX parser takes.

    features, options: those of `FEATURES` and `OPTIONS` that exist there. weights: the form in which quantized weights
    may be stored ("int8" where an initializer may be int8 already). no_dla: why it has no DLA, or None where the
    builder itself has to be asked. checked: what the entry was compared with. executable: its command line program.
    """

    name: str
    product: str
    features: frozenset[str]
    options: frozenset[str]
    opset: int
    weights: Weights
    no_dla: str | None
    checked: str
    executable: str = "trtexec"

    def has(self, name: str) -> bool:
        """Tell whether the Python module has `name`; a name that the table does not record is a bug."""
        assert name in FEATURES, name
        return name in self.features

    def takes(self, option: str) -> bool:
        """Tell whether the command line takes `option`; one that the table does not record is a bug."""
        assert option in OPTIONS, option
        return option in self.options

    @property
    def weakly_typed(self) -> bool:
        """Whether precision may come from builder flags; without them it stands in the ONNX file alone."""
        return self.has("BuilderFlag.FP16")

    @property
    def ahead_of_time(self) -> bool:
        """Whether it builds for named compute capabilities, without a GPU."""
        return self.has("IBuilderConfig.set_compute_capability")


_FLAGS = {"BuilderFlag.FP16", "BuilderFlag.INT8", "IBuilderConfig.int8_calibrator"}
_SINCE_86 = {"IBuilderConfig.builder_optimization_level", "IBuilderConfig.max_aux_streams"}
_STRONG = {"NetworkDefinitionCreationFlag.STRONGLY_TYPED"}
_BATCH = {"NetworkDefinitionCreationFlag.EXPLICIT_BATCH"}
_MONITOR = {"IBuilderConfig.progress_monitor"}
_AHEAD = {"IBuilderConfig.set_compute_capability"}
_EVERY_CLASSIC = {"--allowGPUFallback", "--exportLayerInfo", "--memPoolSize", "--timingCacheFile", "--useDLACore"}
_PRECISION = {"--fp16", "--int8", "--calib"}
_LEVEL = {"--builderOptimizationLevel", "--skipInference"}
_PROFILES = {"--profile"}

DIALECTS = {
    one.name: one
    for one in (
        Dialect(
            name="trt8.5",
            product="TensorRT 8.5",
            features=frozenset(_FLAGS | _BATCH),
            options=frozenset(_EVERY_CLASSIC | _PRECISION | {"--buildOnly"}),
            opset=17,
            weights="float",
            no_dla=None,
            checked="unchecked: read off its headers and published bindings, never compared with a wheel",
        ),
        Dialect(
            name="trt8.6",
            product="TensorRT 8.6",
            features=frozenset(_FLAGS | _BATCH | _SINCE_86),
            options=frozenset(_EVERY_CLASSIC | _PRECISION | _LEVEL | {"--buildOnly"}),
            opset=17,
            weights="float",
            no_dla=None,
            checked="names compared with the wheel of 8.6.1",
        ),
        Dialect(
            name="trt10.3",
            product="TensorRT 10.3",
            features=frozenset(_FLAGS | _BATCH | _SINCE_86 | _STRONG | _MONITOR),
            options=frozenset(_EVERY_CLASSIC | _PRECISION | _LEVEL | _PROFILES | {"--stronglyTyped"}),
            opset=20,
            weights="int8",
            no_dla=None,
            checked="names compared with the wheel of 10.3.0",
        ),
        Dialect(
            name="trt10.16",
            product="TensorRT 10.16",
            features=frozenset(_FLAGS | _BATCH | _SINCE_86 | _STRONG | _MONITOR),
            options=frozenset(_EVERY_CLASSIC | _PRECISION | _LEVEL | _PROFILES | {"--stronglyTyped"}),
            opset=24,
            weights="int8",
            no_dla="10.7 was the last 10.x with DLA",
            checked="names compared with the wheel of 10.16.1, options with the help text of its trtexec",
        ),
        Dialect(
            name="trt11.4",
            product="TensorRT 11.4",
            features=frozenset(_SINCE_86 | _STRONG | _MONITOR),
            options=frozenset(_EVERY_CLASSIC | _LEVEL | _PROFILES | {"--includeDataTransfers", "--stronglyTyped"}),
            opset=25,
            weights="int8",
            no_dla="DLA comes back with 11.4.1 alone, on Jetson AGX Orin with JetPack 7.2.2",
            checked="names compared with the wheel of 11.4.0; options are those of 11.1's source",
        ),
        Dialect(
            name="rtx",
            product="TensorRT-RTX",
            features=frozenset(_SINCE_86 | _STRONG | _MONITOR | _AHEAD),
            options=frozenset({"--computeCapabilities", "--includeDataTransfers", "--skipInference"}),
            opset=24,
            weights="int8",
            no_dla="it builds for RTX graphics cards",
            checked="every build of it runs in the tests; options of its command line are those of its manual, not run",
            executable="tensorrt_rtx",
        ),
    )
}


def named(name: str) -> Dialect:
    """Return the recorded dialect of a name such as `trt8.6`, `8.6` or `rtx`; raises `ConfigError` for another one."""
    known = name if name in DIALECTS else f"trt{name}"
    if known not in DIALECTS:
        hint = did_you_mean(name, DIALECTS) or f"; known are {', '.join(DIALECTS)}"
        raise ConfigError(f"TensorRT '{name}' is not known{hint}")
    return DIALECTS[known]


def detect(vendor: Any) -> Dialect:
    """Return the dialect of an installed TensorRT or TensorRT-RTX module, by the names that it has."""
    features = frozenset(name for name in FEATURES if _has(vendor, name))
    nearest = _nearest(features)
    product = "TensorRT-RTX" if nearest.ahead_of_time else "TensorRT"
    return Dialect(
        name=nearest.name,
        product=f"{product} {vendor.__version__}",
        features=features,
        options=nearest.options,
        opset=nearest.opset,
        weights=nearest.weights,
        no_dla=nearest.no_dla if nearest.ahead_of_time else None,
        checked=f"asked itself; its ONNX form is that of {nearest.product}",
        executable=nearest.executable,
    )


def from_help(text: str, version: str) -> Dialect:
    """Return the dialect of an installed `trtexec` of that version, by the options in its help text."""
    listed = frozenset(_HELP_OPTION.findall(text))
    features = frozenset(IMPLIED[option] for option in listed if option in IMPLIED)
    nearest = _nearest(features, recorded_by=frozenset(IMPLIED.values()))
    return Dialect(
        name=nearest.name,
        product=f"TensorRT {version}",
        features=features,
        options=listed & frozenset(OPTIONS),
        opset=nearest.opset,
        weights=nearest.weights,
        no_dla=None,
        checked=f"asked itself; its ONNX form is that of {nearest.product}",
        executable=nearest.executable,
    )


def _nearest(features: frozenset[str], recorded_by: Iterable[str] = FEATURES) -> Dialect:
    """Return the recorded dialect that has most of `features` and none that is missing; the newer one where two do."""
    compared = frozenset(recorded_by)
    fitting = [one for one in reversed(DIALECTS.values()) if one.features & compared <= features]
    return max(fitting or [DIALECTS["trt8.5"]], key=lambda one: len(one.features & compared))


def _has(vendor: Any, name: str) -> bool:
    owner, attribute = name.split(".")
    return hasattr(getattr(vendor, owner, None), attribute)
