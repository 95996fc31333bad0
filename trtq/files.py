"""Files: written whole or not at all, hashed, and held by one process at a time."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trtq.errors import ModelError, OutputError

CHUNK_BYTES = 1 << 20
TEMPORARY_NAME = "[a-z0-9_]" * 8  # what tempfile puts between prefix and suffix


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it becomes `path` when the block ends well, and vanishes when not.

    Raises `OutputError` when the folder cannot be written or the disk is full.
    """
    temporary = _temporary(path)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({_reason(error)}); free some space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise `OutputError` where `path` cannot be written: asked before long work whose result goes there."""
    _temporary(path).unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically; raises `OutputError`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text to `path` atomically; raises `OutputError`."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON with sorted keys, so that equal values give equal bytes; raises `OutputError`."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`; raises `ModelError` when it is missing or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({_reason(error)})") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: is not a JSON file ({error})") from error


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the file's bytes; raises `ModelError` when it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({_reason(error)})") from error
    return digest.hexdigest()


def sweep(path: Path) -> None:
    """Remove what killed processes left of `path`: only for the one that holds its folder's lock."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.{TEMPORARY_NAME}{glob.escape(path.suffix)}"):
        left.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold `folder` for this process, calling `waiting` once where another one holds it; raises `OutputError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise OutputError(f"{folder}: cannot write here ({_reason(error)}); choose another folder") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _temporary(path: Path) -> Path:
    """Return a new empty file beside `path`, whose folder is made; raises `OutputError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise OutputError(f"{path}: cannot write here ({_reason(error)}); choose another folder") from error
    return Path(name)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
