"""Write the README's result table from the recorded results.

python -m benchmarks.readme
"""

from __future__ import annotations

from typing import Any

from benchmarks.recording import RESULTS, ROOT
from trtq import files

README = ROOT / "README.md"
SOURCE = RESULTS / "yolov7-tiny-digits.json"
START, END = "<!-- results: written by benchmarks/readme.py -->", "<!-- end of results -->"
COLUMNS = ("fp32", "fp16", "naive", "ptq", "qat")


def main() -> None:
    files.write_text(README, with_table(README.read_text()))


def with_table(text: str) -> str:
    """Return the README's text with its table as the recorded results have it."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{table(files.read_json(SOURCE)['modes'])}\n{END}{after}"


def table(modes: dict[str, Any]) -> str:
    rows = [
        ("mAP50, %", "measured", lambda mode: f"{100 * mode['accuracy']['map50']:.2f}"),
        ("mAP50-95, %", "measured", lambda mode: f"{100 * mode['accuracy']['map50_95']:.2f}"),
        ("ONNX file, kB", "measured", lambda mode: f"{mode['onnx_bytes'] / 1000:.0f}"),
        ("convolutions in INT8", "compiled", lambda mode: f"{100 * mode['signals']['int8_share']:.0f} %"),
        ("tensors written twice", "compiled", lambda mode: str(mode["signals"]["double_writes"])),
        ("float tensors written", "compiled", lambda mode: str(mode["signals"]["float_writes"])),
        ("int8 → int8 requantizes", "compiled", lambda mode: str(mode["signals"]["requantizes"])),
        ("leftover Q/DQ conversions", "predicted", lambda mode: _or_dash(mode["predicted_conversions"])),
    ]
    lines = [f"| | {' | '.join(COLUMNS)} | |", f"|---|{'---:|' * len(COLUMNS)}---|"]
    lines += [
        f"| {name} | {' | '.join(value(modes[one]) for one in COLUMNS)} | {origin} |" for name, origin, value in rows
    ]
    return "\n".join(lines)


def _or_dash(value: int | None) -> str:
    return "–" if value is None else str(value)


if __name__ == "__main__":
    main()
