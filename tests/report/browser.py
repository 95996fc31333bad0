"""A headless Chromium over its debugging pipe: open a file, evaluate, collect everything that went wrong."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

EXECUTABLE = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
DEADLINE_S = 30
# Windows' virtual key codes, and the text that a key types.
KEYS = {
    "Tab": (9, ""), "Enter": (13, "\r"), "Escape": (27, ""), "ArrowDown": (40, ""), "ArrowUp": (38, ""),
    "ArrowRight": (39, ""), "ArrowLeft": (37, ""), "+": (187, "+"), "-": (189, "-"),
}  # fmt: skip


class Browser:
    """One page; `problems` holds console errors, uncaught exceptions and whatever the page tried to load."""

    def __init__(self, profile: Path, width: int = 1300, height: int = 900) -> None:
        assert EXECUTABLE is not None
        command_end, self._write = os.pipe()
        self._read, answer_end = os.pipe()
        # Chromium reads commands on descriptor 3 and answers on 4; bash puts them there (dash knows 0 to 9 alone).
        options = (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank")
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{command_end} 4>&{answer_end}', EXECUTABLE, *options],
            pass_fds=(command_end, answer_end),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_end)
        os.close(answer_end)
        self._buffer, self._number, self._session = b"", 0, ""
        self._loaded = False
        self.problems: list[str] = []
        page = next(row for row in self.call("Target.getTargets")["targetInfos"] if row["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def open(self, page: Path) -> None:
        """Load a file and wait until it has loaded."""
        self._loaded = False
        self.call("Page.navigate", url=page.as_uri())
        deadline = time.monotonic() + DEADLINE_S
        while not self._loaded:
            self._handle(self._message(deadline))

    def evaluate(self, script: str) -> Any:
        """Run JavaScript in the page and return its value."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, times: int = 1, *, modifiers: int = 0) -> None:
        """Press a key as a person does: `Tab`, `ArrowDown`, `Enter`, `Escape` or a character; modifiers: 8 is Shift."""
        code, text = KEYS.get(key, (ord(key.upper()[0]), key))
        options = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", **options, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **options)

    def mouse(self, kind: str, x: float, y: float, **options: Any) -> None:
        """Send a mouse event: `mouseMoved`, `mousePressed`, `mouseReleased` or `mouseWheel`."""
        pressed = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **{**pressed, **options})

    def media(self, kind: str = "", scheme: str = "light") -> None:
        """Show the page as on `print`, or in the colour scheme `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=kind, features=features)

    def resize(self, width: int, height: int) -> None:
        """Give the page another size, in pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def screenshot(self, target: Path) -> None:
        """Write what is in sight as PNG."""
        target.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its result."""
        self._number += 1
        request = {"id": self._number, "method": method, "params": params}
        if self._session:
            request["sessionId"] = self._session
        os.write(self._write, json.dumps(request).encode() + b"\0")
        deadline = time.monotonic() + DEADLINE_S
        while (message := self._message(deadline)).get("id") != self._number:
            self._handle(message)
        assert "error" not in message, message
        return dict(message["result"])

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(OSError):
            os.close(self._write)
            os.close(self._read)
        self._process.kill()
        self._process.wait()

    def _message(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "Chromium does not answer"
            chunk = os.read(self._read, 1 << 16)
            assert chunk, f"Chromium ended with {self._process.wait()}"
            self._buffer += chunk
        first, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(first))

    def _handle(self, message: dict[str, Any]) -> None:
        params = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.exceptionThrown":
                self.problems.append(json.dumps(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.problems.append(json.dumps(params["args"]))
            case "Log.entryAdded":
                self.problems.append(params["entry"]["text"])
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith(("file:", "about:")):
                self.problems.append(f"loads {params['request']['url'][:80]}")
