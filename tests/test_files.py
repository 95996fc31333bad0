"""Files are written whole or not at all."""

import errno
import multiprocessing
import os
import time
from pathlib import Path

import pytest

from trtq import files
from trtq.errors import ModelError, OutputError, TrtqError


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    files.write_text(target, "old")
    with pytest.raises(RuntimeError), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "result.bin"
    with pytest.raises(OutputError, match=r"result\.bin: cannot be written \(no space left"), files.atomic_path(target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write here"):
        files.write_text(tmp_path / "file" / "result", "text")


def test_json_is_the_same_bytes_for_equal_values(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a", {"b": 1, "a": [1.5]})
    files.write_json(tmp_path / "b", {"a": [1.5], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, "\udcff"])
def test_what_is_not_json_gets_one_sentence(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError, match=r"bad\.json: is not a JSON file"):
        files.read_json(path)


def test_a_lock_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    started = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path, started))
    holder.start()
    started.wait(10)
    said = []
    with files.locked(tmp_path, lambda: said.append("waiting")):
        assert (tmp_path / "done").exists()
    holder.join()
    assert said == ["waiting"]
    with files.locked(tmp_path, lambda: said.append("waiting again")):
        assert said == ["waiting"]


def test_a_place_to_write_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "folder" / "file.json"
    files.check_writable(target)
    assert list(target.parent.iterdir()) == []
    files.write_text(target, "kept")
    files.check_writable(target)
    assert target.read_text() == "kept" and list(target.parent.iterdir()) == [target]
    with pytest.raises(OutputError, match="cannot write here"):
        files.check_writable(target / "below")


def test_only_what_was_left_half_written_is_swept(tmp_path: Path) -> None:
    target = tmp_path / "[net].plan"
    files.write_text(target, "whole")
    kept = [tmp_path / name for name in (".[net].plan.txt", ".other.plan.abcd1234.plan", ".[net].plan.notes.md.plan")]
    for path in kept:
        path.touch()
    with files.atomic_path(target) as temporary:
        # What a killed process leaves is under this very name.
        left = temporary.read_bytes()
        name = temporary.name
    (tmp_path / name).write_bytes(left)
    files.sweep(target)
    assert sorted(tmp_path.iterdir()) == sorted([target, *kept])


def _hold(folder: Path, started: "multiprocessing.synchronize.Event") -> None:
    with files.locked(folder):
        started.set()
        time.sleep(0.3)
        (folder / "done").touch()


def test_an_error_is_one_line_without_control_characters() -> None:
    assert str(TrtqError("a\x1b[31m\nb\x00 \u202e é ‘")) == r"a\x1b[31m\nb\x00 \u202e é ‘"
