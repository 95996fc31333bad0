"""What TensorRT-RTX's parser refuses in an ONNX file, asked in a process that loads the parser and nothing else.

It starts in a tenth of a second, and its answer is waited for only where it is needed: a linter goes on meanwhile.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from trtq.backends import Refusals, child, onnx_file

NAME = "rtx"
TITLE = "TensorRT-RTX"
TIMEOUT_S = 600.0
# On a deep stack, as builds are: chains of nodes recurse. The end of the input is the end of the one who asks.
SCRIPT = """
import json, os, sys, threading
import tensorrt_rtx as trt

def end_with_parent():
    sys.stdin.buffer.read()
    os._exit(1)

def parse():
    log = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    parser.parse_from_file(sys.argv[1])
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    print(json.dumps([
        {"index": one.node(), "node": one.node_name(), "operator": one.node_operator(), "reason": one.desc()}
        for one in errors
    ]))
    sys.stdout.flush()
    os._exit(0)

threading.Thread(target=end_with_parent, daemon=True).start()
threading.stack_size(512 * 2**20)
threading.Thread(target=parse).start()
"""


@dataclass(frozen=True)
class Asked:
    """A parser that reads a file; called, it waits and returns the tensor that each refused node writes, and why."""

    path: Path
    process: subprocess.Popen[str]

    def __call__(self) -> tuple[tuple[str, str], ...]:
        """Return the refusals; raises `ModelError` where the file is not valid ONNX. A parser that dies refuses."""
        assert self.process.stdout is not None
        watch = threading.Timer(TIMEOUT_S, self.process.kill)
        watch.start()
        printed = self.process.stdout.read()
        code = self.process.wait()
        watch.cancel()
        if code:
            return self._whole(f"its parser died of the file{_by(code)}")
        errors: list[dict[str, Any]] = json.loads(printed.splitlines()[-1])
        if not errors:
            return ()
        network = onnx_file.check(self.path)
        return tuple((_written(network, error), _refusal(error)) for error in errors)

    def _whole(self, reason: str) -> tuple[tuple[str, str], ...]:
        network = onnx_file.check(self.path)
        return ((network.graph.output[0].name, f"{TITLE}: {reason}"),)


def ask(path: Path) -> Refusals:
    """Start asking what the installed TensorRT-RTX refuses in `path`; the answer is what the returned value returns."""
    # From the root folder: nothing in a user's own folder is to be imported in the package's place.
    command = [sys.executable, "-c", SCRIPT, str(path.absolute())]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    return Asked(path, subprocess.Popen(command, cwd="/", stdin=pipe, stdout=pipe, stderr=null, text=True))


def _by(code: int) -> str:
    return f" ({signal.Signals(-code).name})" if code < 0 else ""


def _refusal(error: Mapping[str, Any]) -> str:
    """Return a refusal in words: the operator, and the parser's reason where it gives one."""
    reason = child.telling(error["reason"])
    return f"{TITLE} does not take {error['operator']}{f': {reason}' if reason else ''}"


def _written(network: onnx.ModelProto, error: Mapping[str, Any]) -> str:
    """Return the tensor that a refused node writes; the node's own name where the node is not in the main graph."""
    index: int = error["index"]
    nodes = network.graph.node
    if 0 <= index < len(nodes) and nodes[index].op_type == error["operator"] and nodes[index].output:
        return str(nodes[index].output[0])
    return str(error["node"])
