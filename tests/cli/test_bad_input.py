"""Bad input: one sentence on standard error, the right exit code, no traceback, nothing half-written."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import run_trtq, sentences, write_recipe

LIMIT_BYTES = 4096

torch = pytest.importorskip("torch", reason="torch is not installed")


def refused(*arguments: str | Path, code: int, cwd: Path | None = None) -> str:
    """Run trtq, insist that it refuses with one sentence, and return it."""
    done = run_trtq(*arguments, cwd=cwd)
    said = sentences(done.stderr)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert len(said) == 1, done.stderr
    return said[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("checkpoint") / "other.safetensors"
    save_file({"layer.weight": torch.zeros(3)}, path)
    return path


def with_checkpoint(folder: Path, name: str) -> Path:
    return write_recipe(folder, ('name = "yolov7-tiny"', f'name = "yolov7-tiny"\ncheckpoint = "{name}"'))


def test_unknown_key(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, ("threads = 1", "thread = 1"))
    assert "unknown key 'thread'; did you mean 'threads'?" in refused("build", recipe, code=2)


def test_unknown_mode_and_network(tmp_path: Path) -> None:
    assert "did you mean 'qat'?" in refused("build", write_recipe(tmp_path), "--mode", "qats", code=2)
    recipe = write_recipe(tmp_path, ('"yolov7-tiny"', '"yolov7-tny"'))
    assert "did you mean 'yolov7-tiny'?" in refused("quantize", recipe, code=2)


def test_missing_checkpoint(tmp_path: Path) -> None:
    assert "none.safetensors" in refused("build", with_checkpoint(tmp_path, "none.safetensors"), code=2)


def test_checkpoint_of_another_network(tmp_path: Path, checkpoint: Path) -> None:
    assert "other.safetensors" in refused("quantize", with_checkpoint(tmp_path, str(checkpoint)), code=2)


def test_pickled_checkpoint(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "pickled.pt")
    assert "allow" in refused("quantize", with_checkpoint(tmp_path, "pickled.pt"), code=2)


def test_unreadable_image(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "broken.png").write_bytes(b"not a picture")
    recipe = write_recipe(tmp_path, ('name = "digit-scenes"', 'name = "folder"\npath = "images"'))
    assert "broken.png" in refused("quantize", recipe, code=2)


def test_empty_data_set(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    recipe = write_recipe(tmp_path, ('name = "digit-scenes"', 'name = "folder"\npath = "images"'))
    assert "images" in refused("quantize", recipe, code=2)


@pytest.mark.parametrize("command", [["lint"], ["unify", "-o", "out.onnx"], ["build"]])
@pytest.mark.parametrize("content", [b"", b"this is text\n", b"\x08\x07\x12\x04", None])
def test_files_that_are_not_onnx(tmp_path: Path, command: list[str], content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "bad.onnx").write_bytes(content)
    assert "bad.onnx" in refused(command[0], "bad.onnx", *command[1:], code=2, cwd=tmp_path)
    assert not (tmp_path / "out.onnx").exists()


def test_unsupported_operator(tmp_path: Path) -> None:
    import onnx
    from onnx import parser

    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    text = '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (int64[1, n] y) { y = NonZero(x) }'
    onnx.save(parser.parse_model(text), tmp_path / "odd.onnx")
    assert "NonZero" in refused("build", tmp_path / "odd.onnx", code=2)


def test_an_output_folder_that_cannot_be_made(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path)
    recipe.with_suffix("").write_text("a file in the way of the recipe's folder")
    assert "cannot write here" in refused("build", recipe, code=5)


@pytest.mark.parametrize("stage", ["quantize", "export", "unify"])
def test_a_disk_that_fills_up(stage: str, built: Path, tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: a write fails in its middle."""
    folder, target = built.with_suffix(""), tmp_path / "out" / "result"
    arguments: dict[str, list[str | Path]] = {
        "quantize": [built],
        "export": [built, "--mode", "fp32"],
        "unify": [folder / "naive" / "model.onnx"],
    }
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT_BYTES}, {LIMIT_BYTES}))"
    # The exporter itself writes to a temporary folder first: only the result is limited.
    late = "import trtq.files as f; w = f.write_bytes\n"
    late += f"def write(p, c):\n    {limited}\n    w(p, c)\nf.write_bytes = write\n"
    code = f"{late}import sys; sys.argv = {['trtq', stage, *map(str, arguments[stage]), '-o', str(target)]!r}\n"
    code += "from trtq.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "cannot be written (file too large)" in sentences(done.stderr)[-1]
    assert not list(target.parent.iterdir())


def test_unify_never_overwrites_its_input(tmp_path: Path) -> None:
    import onnx
    from onnx import parser

    text = '<ir_version: 8, opset_import: ["": 17]> g (float[4] x) => (float[4] y) { y = Relu(x) }'
    onnx.save(parser.parse_model(text), tmp_path / "net.onnx")
    before = (tmp_path / "net.onnx").read_bytes()
    assert "is the input itself" in refused("unify", "net.onnx", "-o", "net.onnx", code=2, cwd=tmp_path)
    assert (tmp_path / "net.onnx").read_bytes() == before


def test_unknown_back_end_and_rule(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    assert "did you mean 'rtx'?" in refused("build", tmp_path / "net.onnx", "--backend", "rtxx", code=2)


@pytest.mark.parametrize("command", [["rule", "TQ101"], ["--version"], ["doctor", "--json"]])
def test_a_full_disk_behind_what_is_printed(command: list[str]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with full.open("w") as printed:
        done = subprocess.run(
            [sys.executable, "-m", "trtq", *command], stdout=printed, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 5
    assert done.stderr == "trtq: the disk that it writes to is full; make room and run it again\n"
