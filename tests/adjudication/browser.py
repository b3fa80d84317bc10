"""A headless Chromium that tests drive like a reader: keys, clicks, what the page shows, what it saves.

The DevTools protocol over a pipe: JSON messages that end with a zero byte, on the browser's file descriptors 3 and 4.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_S = 60
"""A busy machine starts a browser slowly."""


def found() -> str | None:
    """The path of a Chromium, None if there is none."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One page of a headless Chromium. errors: what its console complained of, blocked requests included."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._number, self._session = read, write, 0, ""
        self._buffer = b""
        self.errors: list[str] = []

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the DevTools protocol."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            if answer.get("method") in {"Log.entryAdded", "Runtime.exceptionThrown"}:
                self.errors.append(json.dumps(answer["params"]))
        assert "error" not in answer, answer["error"]
        return dict(answer["result"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser ended"
            self._buffer += part
        first, self._buffer = self._buffer.split(b"\0", 1)
        return dict(json.loads(first))

    def open(self, path: Path, downloads: Path | None = None) -> None:
        """Show a file in a new page, which saves its files in `downloads`."""
        self.open_url(path.as_uri(), downloads)

    def open_url(self, url: str, downloads: Path | None = None) -> None:
        """The same for any address."""
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        if downloads:
            self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))
        self._session = session
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.errors.clear()
        self.call("Page.navigate", url=url)
        self.wait(lambda: self.js("document.readyState") == "complete" and self.js("location.href") != "about:blank")

    def js(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, *keys: str, ctrl: bool = False) -> None:
        """Press keys: a character, or a name such as Enter."""
        codes = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowRight": 39}
        for key in keys:
            text = "\r" if key == "Enter" else key if len(key) == 1 and not ctrl else ""
            shared = {"key": key, "modifiers": 2 * ctrl, "windowsVirtualKeyCode": codes.get(key, 0)}
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **shared)
            self.call("Input.dispatchKeyEvent", type="keyUp", **shared)

    def write(self, text: str) -> None:
        """Write into the element that has the focus."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        self.js(f"document.querySelector({json.dumps(selector)}).click()")

    def text(self, selector: str) -> str:
        """What a person reads there."""
        return str(self.js(f"document.querySelector({json.dumps(selector)}).innerText")).strip()

    def is_shown(self, selector: str) -> bool:
        return bool(self.js(f"document.querySelector({json.dumps(selector)}).checkVisibility()"))

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what the page shows as PNG; whole: also what lies below."""
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(picture))

    def wait(self, holds: Callable[[], bool]) -> None:
        """Until `holds` is true."""
        end = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < end, f"waited {PATIENCE_S} s in vain"
            time.sleep(0.02)


@contextmanager
def browser(profile: Path, *options: str) -> Iterator[Browser]:
    """A running Chromium with its own profile folder; it ends with the block."""
    path = found()
    assert path is not None
    from_us, to_us = os.pipe(), os.pipe()
    command = [
        *(path, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-pipe"),
        *("--no-first-run", "--disable-background-networking", f"--user-data-dir={profile}", *options),
    ]
    # dup2 in a shell: 3 is what the browser reads, 4 what it writes.
    shell = f'exec "$@" 3<&{from_us[0]} 4>&{to_us[1]}'
    process = subprocess.Popen(
        ["bash", "-c", shell, "bash", *command], pass_fds=(from_us[0], to_us[1]), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(from_us[0])
    os.close(to_us[1])
    page = Browser(to_us[0], from_us[1])
    try:
        yield page
    finally:
        page._session = ""
        try:
            page.call("Browser.close")
            process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        os.close(to_us[0])
        os.close(from_us[1])
