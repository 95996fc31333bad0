"""docs/ptq.md says of modelopt what was recorded."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.conftest import ROOT

RECORDED = ROOT / "benchmarks" / "results" / "ptq_peers.json"


def row(name: str, verdict: Mapping[str, Any]) -> str:
    """Return a network's row of the page's table."""
    megabytes = [round(value / 1e6, 1) for value in verdict["traffic_bytes"]]
    rounded = [[round(value, 1) for value in verdict["s"]], [round(value) for value in verdict["peak_mib"]]]
    cells = (
        verdict["convolutions_quantized"],
        verdict["requantizes"],
        megabytes,
        verdict["worst_sqnr_db"][:2],
        *rounded,
    )
    return f"| {name} | " + " | ".join(f"{own} / {peer}" for own, peer in cells) + " |"


def test_the_table_is_the_recorded_result() -> None:
    networks = json.loads(RECORDED.read_text())["networks"]
    section = (ROOT / "docs" / "ptq.md").read_text().partition("## Beside modelopt")[2].partition("\n## ")[0]
    rows = re.findall(r"(?m)^\| [a-z].*\|$", section)
    assert rows[1:] == [row(name, one["verdict"]) for name, one in networks.items()]
    assert all(one["verdict"]["double_writes"] == [0, 0] for one in networks.values())
