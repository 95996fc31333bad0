"""2,000 mutated layer files, profiles and logs: each read or refused in one sentence, and what is read is there.

Real files from ../shared/data/engines, mutated from a fixed seed: values and structure, names with raw quotes as
trtexec writes them, bytes, and lines of logs; then hand-made hostile ones. What a reader reports has to equal the
recount of `benchmarks/recount.py`, which refuses by its own rules; each file has 10 seconds.

    python -m benchmarks.fuzzed_readers
"""

from __future__ import annotations

import copy
import json
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from benchmarks import recount
from benchmarks.recording import ROOT, record
from trtq.errors import ModelError
from trtq.layers import read, trtexec_log, trtexec_times

ENGINES = ROOT.parent / "shared" / "data" / "engines"
SEED, FILES, LIMIT_S = 20_251, 2000, 10
LAYER_FILES = (
    "trt8-resnet18-a100/qat.graph.json", "trt8-resnet18-a100/fp16.graph.json",
    "trt10-mnist-h100/trt10.16.1.layers.json",
    "trt8-mobilenetv2-titanrtx/qat-residual.graph.json", "trt10.1-rtx3060/alexnet-fp16.graph.json",
    "trt11.0-mnist-b200/layers.json",
)  # fmt: skip
PROFILES = ("trt8-resnet18-a100/qat.profile.json", "trt10.1-rtx3060/alexnet-fp16.profile.json")
LOGS = ("trt11.0-mnist-b200/summary.excerpt.log", "trt11.0-mnist-b200/unknown-option.excerpt.log")
LONG_LOGS = ("trtexec-logs/trt8.0.3.txt", "trtexec-logs/trt8.6.0-verbose.log", "trtexec-logs/trt10.16.1.log")
RTX_TABLE = ROOT / "tests" / "layers" / "branches.table.txt"
LOG_LINES = 60  # kept of a long log at each end
RAW_NAMES = ('say "conv"', "a\x1eb", 'x", "y', "tab\there", "c:\\data\\q", 'end"', "\x1f", "[profile", "ünïcode \u2028")
VALUES: tuple[Any, ...] = (
    None, True, -1, 3.7, float("nan"), float("inf"), 10**400, "", "Int8", [], {}, [[]], "Unknown format", -(2**63),
)  # fmt: skip
KINDS = ("signal", "wait", "signal_and_wait", "novelty", "NoOp", "Scale", "Reformat", "kgen", "")
FORMATS = ("Int8", "Half", "BFloat16", "Unknown format", "N/A due to dynamic shapes", "E8M0", "INT8.", "Bool", "")

ACTIONS = ("double", "drop", "shuffle", "kind", "profile", "value", "key", "tensor", "format", "name only")

Sort = Literal["layers", "profile", "log", "table"]


@dataclass(frozen=True)
class Case:
    """A mutated file: its sort, how it was made, its bytes, its recount; `strict`: only the recount may refuse it."""

    sort: Sort
    how: str
    content: bytes
    totals: dict[str, Any] | None
    strict: bool = True


class TooSlowError(Exception):
    """A file took longer than its limit."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path, outcomes, slowest = Path(folder) / "file", Counter[str](), 0.0
        wrong: list[str] = []
        for number, case in enumerate([*cases(FILES, SEED), *hostile()]):
            started = time.perf_counter()
            outcome = judge(case, path)
            slowest = max(slowest, time.perf_counter() - started)
            outcomes[f"{case.sort}: {outcome.partition(':')[0]}"] += 1
            if outcome not in ("read", "refused"):
                wrong.append(f"{number} {case.sort} {case.how}: {outcome}")
    result = {
        "files": FILES,
        "hostile": len(list(hostile())),
        "outcomes": dict(sorted(outcomes.items())),
        "wrong": wrong,
    }
    record("fuzzed_readers", "python -m benchmarks.fuzzed_readers", {**result, "slowest_s": round(slowest, 2)})


def judge(case: Case, path: Path) -> str:
    """Return "read" or "refused", or what is wrong; `path` is where the file is put."""
    path.write_bytes(case.content)
    try:
        with limit(LIMIT_S):
            found = TOTALS[case.sort](path)
    except ModelError as error:
        if case.totals is not None and case.strict:
            return f"refused what is well-formed: {error}"
        return "refused" if "\n" not in str(error) else f"not one line: {error}"
    except TooSlowError:
        return "too slow"
    except Exception as error:  # anything else is what is looked for
        return f"crash: {error!r}"
    if case.totals is None:
        return f"read what is malformed: {found}" if case.strict else "read"
    return "read" if same(found, case.totals) else f"reads {found}, recounted {case.totals}"


def cases(count: int, seed: int) -> Iterator[Case]:
    """Yield mutated files; equal arguments give equal files."""
    draw = random.Random(seed)
    layer_files = [json.loads((ENGINES / name).read_text()) for name in LAYER_FILES]
    profiles = [json.loads((ENGINES / name).read_text()) for name in PROFILES]
    logs = [(ENGINES / name).read_text() for name in LOGS] + [
        shortened((ENGINES / name).read_text()) for name in LONG_LOGS
    ]
    tables = [logs[-1], logs[-2], RTX_TABLE.read_text()]
    makers: tuple[Callable[[], Case], ...] = (
        lambda: mutated_value("layers", draw.choice(layer_files), draw),
        lambda: mutated_value("profile", draw.choice(profiles), draw),
        lambda: raw_names("layers", draw.choice(layer_files), draw),
        lambda: raw_names("profile", draw.choice(profiles), draw),
        lambda: mutated_bytes(draw.choice(("layers", "profile")), draw.choice([*layer_files, *profiles]), draw),
        lambda: mutated_log("log", draw.choice(logs), draw),
        lambda: mutated_log("table", draw.choice(tables), draw),
    )
    for number in range(count):
        yield makers[number % len(makers)]()


def shortened(log: str) -> str:
    """Return both ends of a log, and its layer table in full."""
    lines = log.split("\n")
    table = [index for index, line in enumerate(lines) if line.endswith(("Layers:", "Bindings:"))]
    middle = lines[table[0] : table[-1] + 4] if len(table) > 1 else []
    return "\n".join([*lines[:LOG_LINES], *middle, *lines[-LOG_LINES:]])


def mutated_value(sort: Sort, document: Any, draw: random.Random) -> Case:
    document = copy.deepcopy(document)
    how = [mutate(document, draw) for _ in range(draw.randint(1, 4))]
    text = json.dumps(document)
    return Case(sort, ", ".join(how), text.encode(), recounted(sort, text))


def mutate(document: Any, draw: random.Random) -> str:
    """Change one thing of an inspector's document, or of a profile's rows, in place; return what."""
    rows = document["Layers"] if isinstance(document, dict) and isinstance(document.get("Layers"), list) else document
    if not isinstance(rows, list) or not rows:
        return "nothing left to change"
    place = draw.randrange(len(rows))
    action = draw.choice(
        ("double", "drop", "shuffle", "kind", "profile", "value", "key", "tensor", "format", "name only")
    )
    if action == "double":
        rows.insert(place, copy.deepcopy(rows[place]))
    elif action == "drop":
        del rows[place : place + draw.choice((1, 1, 1, len(rows)))]
    elif action == "shuffle":
        draw.shuffle(rows)
    elif not isinstance(rows[place], dict) or not rows[place]:
        rows[place] = draw.choice(VALUES)
    else:
        change_row(rows, place, action, draw)
    return action


def change_row(rows: list[Any], place: int, action: str, draw: random.Random) -> None:
    row = rows[place]
    tensors = [one for key in ("Inputs", "Outputs") for one in (row.get(key) or []) if isinstance(one, dict)]
    if action == "kind":
        row["LayerType"] = draw.choice(KINDS)
        if place + 1 < len(rows) and isinstance(rows[place + 1], dict):
            rows[place + 1]["LayerType"] = draw.choice(KINDS)
    elif action == "profile":
        row["Name"] = f"{row.get('Name')} [profile {draw.choice((0, 1, 12))}]_myl1_2"
    elif action == "name only":
        rows[place] = str(row.get("Name"))
    elif action == "tensor" and tensors:
        one = draw.choice(tensors)
        one[draw.choice((*one, "Extra"))] = draw.choice(VALUES)
    elif action == "format" and tensors:
        draw.choice(tensors)[draw.choice(("Format/Datatype", "Datatype"))] = draw.choice(FORMATS)
    elif action == "key":
        row.pop(draw.choice(list(row)))
    else:
        row[draw.choice(list(row))] = draw.choice(VALUES)


def raw_names(sort: Sort, document: Any, draw: random.Random) -> Case:
    """Write names between quotes as they are, as trtexec does: the totals are those before that."""
    document = copy.deepcopy(document)
    rows = document["Layers"] if sort == "layers" else [row for row in document if "name" in row]
    key = "Name" if sort == "layers" else "name"
    marks = {}
    for number in range(draw.randint(1, 3)):
        mark = f"raw-name-{number}-"
        marks[mark] = draw.choice(RAW_NAMES)
        draw.choice(rows)[key] = mark
    text = json.dumps(document)
    totals = recounted(sort, text)
    for mark, name in marks.items():
        text = text.replace(f'"{mark}"', f'"{name}"')
    return Case(sort, f"raw names {sorted(marks.values())}", text.encode(), totals)


def mutated_bytes(sort: Sort, document: Any, draw: random.Random) -> Case:
    sort = "layers" if isinstance(document, dict) else "profile"
    content = bytearray(json.dumps(document).encode())
    for _ in range(draw.randint(1, 3)):
        start = draw.randrange(len(content))
        length = draw.choice((1, 1, 2, 40, len(content)))
        action = draw.choice(("flip", "cut", "double", "noise"))
        if action == "flip":
            content[start] ^= 1 << draw.randrange(8)
        elif action == "cut":
            del content[start : start + length]
        elif action == "double":
            content[start:start] = content[start : start + min(length, 200)]
        else:
            content[start : start + 1] = draw.randbytes(3)
        content = content or bytearray(b"{")
    text = bytes(content).decode(errors="replace")
    if is_json(text):
        return Case(sort, "bytes", bytes(content), recounted(sort, text))
    # What is no JSON as it stands may be refused; where a name is mended, no row may get lost.
    return Case(sort, "bytes", bytes(content), recount.rows(sort, text), strict=False)


def mutated_log(sort: Sort, log: str, draw: random.Random) -> Case:
    lines = log.split("\n")
    for _ in range(draw.randint(1, 6)):
        place = draw.randrange(len(lines))
        action = draw.choice(("drop", "double", "cut", "swap", "word", "truncate"))
        if action == "drop":
            del lines[place]
        elif action == "double":
            lines.insert(draw.randrange(len(lines)), lines[place])
        elif action == "cut":
            lines[place] = lines[place][: draw.randrange(len(lines[place]) + 1)]
        elif action == "swap":
            lines[place], lines[-1 - place] = lines[-1 - place], lines[place]
        elif action == "word":
            words = lines[place].split(" ")
            words[draw.randrange(len(words))] = draw.choice(("nan", "inf", "-1", "1e999", "1.2.3", "=", "", "9" * 5000))
            lines[place] = " ".join(words)
        elif draw.random() < 0.2:
            del lines[place:]
        lines = lines or [""]
    text = "\n".join(lines)
    if sort == "log":
        return Case(sort, "lines", text.encode(), recount.log(text))
    return Case(sort, "lines", text.encode(), recount.table(text), strict=False)


def hostile() -> Iterator[Case]:
    """Yield large and deep files: each read or refused within its limit."""
    table = "&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # trtexec\nLayers:\n"
    rows = "Name: a, LayerType: b, Inputs: [" + "{ Name: x, " * 100_000 + "], Outputs: []\n\nBindings:\n"
    texts = {
        "deep list": "[" * 200_000,
        "deep object": '{"Layers":' * 100_000,
        "quotes": '{"Layers": ["' + '"' * 2_000_000,
        "quotes and commas": '[{"name": "' + '", "' * 500_000,
        "blanks": '{"Layers": ["' + '" ' * 500_000 + " " * 1_000_000,
        "large number": '{"Layers": [' + "9" * 1_000_000 + "]}",
        "open tensors": table + rows,
        "long line": "&&&& RUNNING TensorRT.trtexec [TensorRT v8601] # " + "x" * 5_000_000,
        "zero bytes": "\0" * 1_000_000,
    }
    for how, text in texts.items():
        yield Case("layers", how, text.encode(), None, strict=False)
    many = json.dumps({"Layers": [tensor_row(number) for number in range(20_000)], "Bindings": []})
    yield Case("layers", "20,000 layers on one buffer", many.encode(), recounted("layers", many))


def tensor_row(number: int) -> dict[str, Any]:
    tensor = {"Name": "buffer", "Dimensions": [1, number % 7 + 1], "Format/Datatype": "Half"}
    return {"Name": "same", "LayerType": "kgen", "Inputs": [tensor], "Outputs": [tensor]}


def recounted(sort: Sort, text: str) -> dict[str, Any] | None:
    if not is_json(text):
        return None
    document = json.loads(text, strict=False)
    return recount.layers(document) if sort == "layers" else recount.profile(document)


def is_json(text: str) -> bool:
    try:
        json.loads(text, strict=False)
    except (ValueError, RecursionError):
        return False
    return True


def layer_totals(path: Path) -> dict[str, Any]:
    graph = read(path)
    every = [tensor for layer in graph.layers for tensor in (*layer.inputs, *layer.outputs)]
    return {
        "layers": graph.signals.layers,
        "tensors": len(every),
        "dtypes": dict(Counter(tensor.dtype for tensor in every)),
        "conversions": graph.signals.conversions,
        "traffic_bytes": graph.signals.traffic_bytes,
    }


def table_totals(path: Path) -> dict[str, Any]:
    return {"layers": read(path).signals.layers}


def profile_totals(path: Path) -> dict[str, Any]:
    profile = trtexec_times.read_profile(path)
    finite = [row.time_us for row in profile.rows if abs(row.time_us) < float("inf")]
    return {"rows": len(profile.rows), "sum_ms": sum(finite) / 1000}


def log_totals(path: Path) -> dict[str, Any]:
    log = trtexec_log.read_log(path)
    latency = log.metrics.get("Latency")
    return {"throughput_qps": log.throughput_qps, "latency_mean_ms": None if latency is None else latency.mean_ms}


TOTALS: dict[Sort, Callable[[Path], dict[str, Any]]] = {
    "layers": layer_totals,
    "profile": profile_totals,
    "log": log_totals,
    "table": table_totals,
}


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Tell whether totals are equal, sums of times to within rounding."""
    return all(
        found[key] == value
        or (isinstance(value, float) and found[key] is not None and abs(found[key] - value) <= 1e-6 * (1 + abs(value)))
        for key, value in wanted.items()
    )


@contextmanager
def limit(seconds: int) -> Iterator[None]:
    """Raise `TooSlowError` within the block after that many seconds."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    main()
