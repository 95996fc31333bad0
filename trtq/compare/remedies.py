"""What mends a difference: a finding of the Q/DQ linter, or a scale group, with the command that applies it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trtq import qdq, rules
from trtq.rules import Finding

OUT = "OUT.onnx"
ANY_MODEL = "MODEL.onnx"
# Rules about what stands beside what: these decide which conversions are left.
PLACEMENT = tuple(rule.code for rule in rules.RULES if rule.code.startswith(("TQ1", "TQ2")))
FROM_IMAGES = ("TQ201", "TQ202", "TQ206", "TQ208", "TQ209")
_QUANTIZER = re.compile(r"(.+)/(?:Quantize|Dequantize)Linear(?:_\d+)?$")
_WEIGHT = re.compile(r"(.+)\.weight$")


@dataclass(frozen=True)
class Remedy:
    """The command in words, the rule's code where one found it, and the scale group's tensors where one is behind."""

    text: str
    finding: str = ""
    group: tuple[str, ...] = ()


class Advice:
    """What the linter knows of the ONNX file that one engine was built from; without the file, only what rules say."""

    def __init__(self, name: str, path: Path | None) -> None:
        self.name = name
        self.path = path

    def for_tensors(self, tensors: Iterable[str]) -> Remedy | None:
        """Return the remedy of the first finding that is about one of these tensors; raises `ModelError`."""
        for tensor in tensors:
            if found := self._findings.get(tensor):
                return self.of(found)
        return None

    def of(self, finding: Finding) -> Remedy:
        """Return the remedy of a finding."""
        group = finding.tensors if finding.code.startswith("TQ1") else ()
        # A range that the file does not hold makes a finding unfixable; images have it.
        if not finding.fixable and finding.code not in FROM_IMAGES:
            return Remedy(f"by hand, {finding.code} {finding.name}: {self.lint()}", finding.code, group)
        if group:
            scales = f"one scale for {_listed(group)}"
            return Remedy(f"{self.unify()}: {scales}", finding.code, group)
        return Remedy(f"{self.fix(finding.code)} ({finding.name})", finding.code)

    def fix(self, code: str) -> str:
        """Return the command that mends what a rule finds."""
        calibration = " --calibration IMAGES" if code in FROM_IMAGES else ""
        return self._on_file(f"trtq lint {{}} --select {code} --fix{calibration} -o {OUT}")

    def unify(self) -> str:
        """Return the command that gives each scale group one scale."""
        return self._on_file(f"trtq unify {{}} -o {OUT}")

    def lint(self) -> str:
        """Return the command that lists what is wrong with the file."""
        return self._on_file("trtq lint {}")

    def quantize(self) -> str:
        """Return the command that quantizes a float file."""
        return self._on_file(f"trtq ptq {{}} --calibration IMAGES -o {OUT}")

    @property
    def is_certain(self) -> bool:
        """Whether the file is at hand, so that what the linter does not find is not there."""
        return self.path is not None

    def _on_file(self, command: str) -> str:
        if self.path is None:
            return f"{command.format(ANY_MODEL)} ({ANY_MODEL}: the file of {self.name})"
        return command.format(shlex.quote(str(self.path)))

    @cached_property
    def _findings(self) -> dict[str, Finding]:
        """The findings by each tensor that they are about; of several, the first rule's."""
        if self.path is None:
            return {}
        found: dict[str, Finding] = {}
        for finding in rules.lint(qdq.load(self.path), select=PLACEMENT):
            for tensor in (*finding.removes, *finding.tensors):
                found.setdefault(tensor, finding)
        return found


def modules(names: Iterable[str], reader: Iterable[str] = ()) -> tuple[str, ...]:
    """Return the module names of quantizers, read off their nodes' names, or off the weights of what reads them.

    `/layer1.1/conv1/input_quantizer/QuantizeLinear` is `layer1.1.conv1.input_quantizer`; beside the weight
    `layer1.1.conv1.weight`, `QuantizeLinear_40` is that layer's input quantizer.
    """
    found = [match[1].strip("/").replace("/", ".") for name in names if (match := _QUANTIZER.fullmatch(name))]
    if not found:
        found = [f"input quantizer of {match[1]}" for name in reader if (match := _WEIGHT.fullmatch(name))]
    return tuple(dict.fromkeys(found))


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names)
