"""A file to read layers or measurements from: its bytes, its text and its JSON value, each made once."""

from __future__ import annotations

import codecs
import os
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trtq.errors import ModelError
from trtq.layers import loose_json

MAX_BYTES = 1 << 30
# Windows' PowerShell redirects a program's output as UTF-16.
BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Source:
    """The content of a file that may be anything."""

    path: Path
    content: bytes

    @cached_property
    def text(self) -> str:
        """The content as text, newlines as \\n; bytes that are no text become U+FFFD."""
        encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if self.content.startswith(mark)), "utf-8")
        return self.content.decode(encoding, errors="replace").replace("\r\n", "\n")

    @cached_property
    def document(self) -> Any:
        """The JSON value, mended where trtexec left names unescaped; None where the content is not JSON."""
        value, _ = self._parsed
        return value

    @cached_property
    def fault(self) -> str:
        """Why the content is not JSON, for a message."""
        _, fault = self._parsed
        return fault

    @cached_property
    def _parsed(self) -> tuple[Any, str]:
        if not self.text.lstrip().startswith(("{", "[")):
            return None, "it does not start like JSON"
        try:
            return loose_json.parse(self.text), ""
        except (ValueError, RecursionError) as error:
            return None, "it is nested too deep" if isinstance(error, RecursionError) else str(error)


def read_source(path: Path) -> Source:
    """Return the content of a file; raises `ModelError` for one that is missing, no file, or larger than 1 GiB."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ModelError(f"{path}: is a folder; give a file")
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISFIFO(status.st_mode)):
            raise ModelError(f"{path}: is no file but a device; give a file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({(error.strerror or os.strerror(error.errno or 0)).lower()})") from (
            error
        )
    except ValueError as error:
        raise ModelError(f"{str(path)!r}: cannot be read ({error})") from error
    if len(content) > MAX_BYTES:
        raise ModelError(f"{path}: is larger than 1 GiB; no engine's layers are, so give another file")
    return Source(path, content)
