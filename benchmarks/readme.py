"""Write the README's result tables from the recorded results.

python -m benchmarks.readme
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks import figures, markdown
from benchmarks.recording import RESULTS, ROOT
from trtq import files

README = ROOT / "README.md"
DEMO = RESULTS / "yolov7-tiny-digits.json"
SCALE = RESULTS / "published_rules.json"
END = "<!-- end of results -->"
COLUMNS = ("fp32", "fp16", "naive", "ptq", "qat")
PLACEMENTS = ("naive", "published", "trtq")


def main() -> None:
    files.write_text(README, with_tables(README.read_text()))


def with_tables(text: str) -> str:
    """Return the README's text with its tables as the recorded results have them."""
    tables = {
        "demo": table(files.read_json(DEMO)["modes"]),
        "scale": scale_table(files.read_json(SCALE)["networks"]),
        "claims": figures.table(),
    }
    for name, lines in tables.items():
        start = f"<!-- {name} results: written by benchmarks/readme.py -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(END)
        text = f"{before}{start}\n{lines}\n{END}{after}"
    return text


def scale_table(networks: dict[str, Any]) -> str:
    rows = [["", "in the file", "compiled", "compiled", "compiled"]]
    for name, placements in networks.items():
        placed = [placements[one] for one in PLACEMENTS]
        columns = [
            " → ".join(str(one[key]) for one in placed)
            for key in ("tensors_with_two_scales", "double_writes", "float_writes")
        ]
        columns.append(" → ".join(f"{one['traffic_bytes'] / 1e6:.1f}" for one in placed))
        rows.append([f"{name.replace('@', ' at ')} px", *columns])
    heads = ["", "tensors with two scales", "tensors written twice", "float tensors written", "traffic, MB"]
    return markdown.table(heads, rows)


def table(modes: dict[str, Any]) -> str:
    rows: list[tuple[str, str, Callable[[Any], str]]] = [
        ("mAP50, %", "measured", lambda mode: f"{100 * mode['accuracy']['map50']:.2f}"),
        ("mAP50-95, %", "measured", lambda mode: f"{100 * mode['accuracy']['map50_95']:.2f}"),
        ("ONNX file, kB", "measured", lambda mode: f"{mode['onnx_bytes'] / 1000:.0f}"),
        ("convolutions in INT8", "compiled", lambda mode: f"{100 * mode['signals']['int8_share']:.0f} %"),
        ("tensors written twice", "compiled", lambda mode: str(mode["signals"]["double_writes"])),
        ("float tensors written", "compiled", lambda mode: str(mode["signals"]["float_writes"])),
        ("int8 → int8 requantizes", "compiled", lambda mode: str(mode["signals"]["requantizes"])),
        ("leftover Q/DQ conversions", "predicted", lambda mode: _or_dash(mode["predicted_conversions"])),
    ]
    cells = [[name, *(value(modes[one]) for one in COLUMNS), origin] for name, origin, value in rows]
    return markdown.table(["", *COLUMNS, ""], cells, f"l{'r' * len(COLUMNS)}l")


def _or_dash(value: int | None) -> str:
    return "–" if value is None else str(value)


if __name__ == "__main__":
    main()
