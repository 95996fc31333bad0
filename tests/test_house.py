"""The house: a room imports only from rooms above it, heavy packages only where they belong, lines stay honest."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "trtq"
# Top to bottom: a room imports only from rooms above it.
ROOMS = [
    "errors", "files", "machine", "config", "qdq", "rules", "layers", "predict", "compare", "data", "backends",
    "bench", "evaluate", "ptq", "models", "quant", "report", "pipeline", "cli",
]  # fmt: skip
# Packages that only some rooms may import.
HOMES = {
    "torch": {"models", "quant"},
    "torchvision": {"models"},
    "pytorch_quantization": {"quant"},
    "safetensors": {"models", "quant"},
    "onnxruntime": {"backends"},
    "tensorrt_rtx": {"backends"},
    "tensorrt": {"backends"},
    "typer": {"cli"},
    "graphviz": {"report"},
    "jinja2": {"report"},
}
LATE_IMPORTS_ALLOWED = {"cli"}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "trtq":
                yield from ((f"trtq.{alias.name}", node) for alias in node.names)
            else:
                yield node.module, node


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_from_above(path: Path) -> None:
    room = room_of(path)
    if room in ("__init__", "__main__"):
        return
    assert room in ROOMS, f"{room} is not in the import table"
    tree = ast.parse(path.read_text())
    top_level = set(map(id, tree.body))
    for name, node in imports(tree):
        package = name.split(".")[0]
        assert room in HOMES.get(package, {room}), f"{name} belongs to {HOMES[package]}"
        if package == "trtq" and "." in name:
            other = name.split(".")[1]
            if other in ROOMS:
                assert ROOMS.index(other) <= ROOMS.index(room), f"{room} imports {name} from below"
        late = id(node) not in top_level and not _guarded(tree, node)
        assert not late or room in LATE_IMPORTS_ALLOWED, f"hidden import of {name}"


def _guarded(tree: ast.Module, node: ast.stmt) -> bool:
    """A version switch or a missing-package guard at the top of a file is at the top of the file."""
    return any(isinstance(one, (ast.If, ast.Try)) and node in ast.walk(one) for one in tree.body)


def test_no_file_is_two_rooms_in_one() -> None:
    long = {
        str(path.relative_to(ROOT)): count for path in sources() if (count := len(path.read_text().splitlines())) > 450
    }
    assert not long


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from trtq.cli import main\n"
        f"sys.argv = ['trtq', *{arguments!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {'torch', 'onnx', 'onnx_ir', 'onnxruntime', 'tensorrt_rtx', 'numpy', 'jinja2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


def test_the_project_speaks_of_itself_alone() -> None:
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=False, capture_output=True, text=True).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    for name in filter(None, tracked.split("\0")):
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".json") and path.is_file():
            assert "/work" + "/" not in path.read_text(), f"{name} names a path of one machine"
