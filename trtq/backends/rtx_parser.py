"""What TensorRT-RTX's parser refuses in an ONNX file, asked in a process that loads the parser and nothing else.

It starts in a tenth of a second, and its answer is waited for only where it is needed: a linter goes on meanwhile.
A small file can ask for any amount of memory (functions that call each other multiply), so the process has a limit,
which the kernel keeps.
"""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from trtq.backends import Refusals, child, onnx_file

NAME = "rtx"
TITLE = "TensorRT-RTX"
STACK_MIB = 512
# What a file may take besides the stack: 100,000 nodes in 7 MiB take 700 MiB, 100 bytes a byte; weights take 2 to 5.
LEAST_MIB, GROWTH = 1024, 128
# And how long: those nodes take 9 s.
LEAST_S, S_PER_MIB = 60.0, 10.0
OUT_OF_MEMORY = 77
# The last words of a process that C++ or the C library ends for want of memory.
NO_MEMORY = ("std::bad_alloc", "cannot allocate memory")
# On a deep stack, as builds are: chains of nodes recurse. The end of the input is the end of the one who asks.
SCRIPT = """
import json, os, resource, sys, threading
path, limit_mib, stack_mib, out_of_memory = sys.argv[1], *map(int, sys.argv[2:])
resource.setrlimit(resource.RLIMIT_DATA, (limit_mib * 2**20, limit_mib * 2**20))
import tensorrt_rtx as trt

def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(1)

def parse():
    try:
        ask()
    except MemoryError:
        os._exit(out_of_memory)

def ask():
    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    parser.parse_from_file(path)
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    # Out of memory, the parser may call a node invalid and say no more; then this does not fit either.
    if errors and bytearray(16 * 2**20) and any("std::bad_alloc" in one.desc() for one in errors):
        os._exit(out_of_memory)
    print(json.dumps([
        {"index": one.node(), "node": one.node_name(), "operator": one.node_operator(), "reason": one.desc()}
        for one in errors
    ]))
    sys.stdout.flush()
    os._exit(0)

threading.Thread(target=end_with_parent, daemon=True).start()
threading.stack_size(stack_mib * 2**20)
threading.Thread(target=parse).start()
"""


@dataclass(frozen=True)
class Asked:
    """A parser that reads a file; called, it waits and returns the tensor that each refused node writes, and why."""

    path: Path
    process: subprocess.Popen[str]
    limit_mib: int
    timeout_s: float

    def __call__(self) -> tuple[tuple[str | None, str], ...]:
        """Return the refusals; raises `ModelError` where the file is not valid ONNX. A parser that dies refuses."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + self.timeout_s
        watch = threading.Timer(self.timeout_s, self.process.kill)
        watch.start()
        printed = self.process.stdout.read()
        code = self.process.wait()
        watch.cancel()
        late = code == -signal.SIGKILL and time.monotonic() >= deadline
        errors: list[dict[str, Any]] = [] if code else json.loads(printed.splitlines()[-1])
        if not code and not errors:
            return ()
        network = onnx_file.check(self.path)
        if code:
            return ((None, self._late() if late else self._end(code, printed)),)
        return tuple((_written(network, error), _refusal(error)) for error in errors)

    def _late(self) -> str:
        return f"{TITLE}'s parser took longer than {round(self.timeout_s, 1):g} s for this file and was stopped"

    def _end(self, code: int, printed: str) -> str:
        """Return in words why the process ended early; its last line says more, where it had one."""
        if code == OUT_OF_MEMORY or any(words in printed for words in NO_MEMORY):
            return f"{TITLE}'s parser needs more than the {self.limit_mib} MiB that a file of this size may take"
        last = "".join(f": {child.short(line)}" for line in printed.splitlines()[-1:])
        return f"{TITLE}'s parser died of this file ({_by(code)}){last}"


def ask(path: Path, weights_bytes: int = 0) -> Refusals:
    """Start asking what the installed TensorRT-RTX refuses in `path`; the answer is what the returned value returns.

    weights_bytes: what the file keeps in others beside it; with its own size that decides how much memory and time the
    parser may take.
    """
    size_mib = (path.stat().st_size + weights_bytes) / 2**20
    limit_mib = _limit_mib(size_mib)
    numbers = map(str, (STACK_MIB + limit_mib, STACK_MIB, OUT_OF_MEMORY))
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(path.absolute()), *numbers],
        # From the root folder: nothing in a user's own folder is to be imported in the package's place.
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    return Asked(path, process, limit_mib, LEAST_S + S_PER_MIB * size_mib)


def _limit_mib(size_mib: float) -> int:
    """Return the memory that the parser may take: what a file of that size explains, and no more than is free here."""
    free_mib = child.free_mib()
    return int(min(LEAST_MIB + GROWTH * size_mib, math.inf if free_mib is None else child.FREE_MEMORY_SHARE * free_mib))


def _by(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def _refusal(error: Mapping[str, Any]) -> str:
    """Return a refusal in words: the operator, and the parser's reason where it gives one."""
    reason = child.telling(error["reason"])
    return f"{TITLE} does not take {error['operator'] or 'this file'}{f': {reason}' if reason else ''}"


def _written(network: onnx.ModelProto, error: Mapping[str, Any]) -> str | None:
    """Return the tensor that a refused node writes; the node's own name where the node is not in the main graph.

    None where it is no node that is refused, but an initializer, or the file.
    """
    index: int = error["index"]
    nodes = network.graph.node
    if 0 <= index < len(nodes) and nodes[index].op_type == error["operator"] and nodes[index].output:
        return str(nodes[index].output[0])
    return str(error["node"]) or None
