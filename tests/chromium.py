"""Headless Chromium over its debugging pipe: load a page, ask it things, photograph it.

python tests/chromium.py docs/results/nsmc-e5/report.html docs/report.png
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
)


def find_chromium() -> str | None:
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


class Page:
    """One tab; ``problems`` collects console errors, exceptions and requests over the network.

    ``local`` are the beginnings of addresses that do not count as the network.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out, self._in = to_browser, from_browser
        self._buffer, self._count, self._session = b"", 0, None
        self.problems: list[str] = []
        self.local: tuple[str, ...] = ("file:", "data:", "about:", "blob:")
        self._loaded = False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command, wait for its answer, note events on the way."""
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return answer["result"]
            self._note(answer)

    def open(self, page: Path | str, width: int, height: int = 900, dark: bool = False) -> None:
        """Load a file or an address at a window size; waits for the load event."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self._loaded = False
        address = page if isinstance(page, str) else page.resolve().as_uri()
        self.call("Page.navigate", url=address)
        while not self._loaded:
            self._note(self._receive())

    def ask(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression, or of what its promise comes to."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def photograph(self, target: Path, clip: dict[str, float] | None = None) -> None:
        """A PNG of the whole page, or of a part of it."""
        more = {"clip": {**clip, "scale": 1}} if clip else {}
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True, **more)
        target.write_bytes(base64.b64decode(picture["data"]))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = os.read(self._in, 1 << 16)
            assert part, "the browser has gone"
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.problems.append(told["entry"]["text"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(told["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.problems.append(json.dumps(told["args"]))
        elif method == "Network.requestWillBeSent":
            url = told["request"]["url"]
            if not url.startswith(self.local):
                self.problems.append(f"request to {url}")


@contextmanager
def open_browser() -> Iterator[Page]:
    """A fresh browser with an empty profile, gone afterwards."""
    browser_in, to_browser = os.pipe()
    from_browser, browser_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # the browser reads commands from descriptor 3 and writes answers to descriptor 4
        command = f'exec "$@" 3<&{browser_in} 4>&{browser_out}'
        arguments = [*FLAGS, f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        process = subprocess.Popen(
            ["bash", "-c", command, "bash", find_chromium() or "chromium", *arguments],
            pass_fds=(browser_in, browser_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": profile},
        )
        os.close(browser_in)
        os.close(browser_out)
        try:
            yield Page(to_browser, from_browser)
        finally:
            process.terminate()
            process.wait(timeout=20)
            os.close(to_browser)
            os.close(from_browser)


def main() -> None:
    """Photograph the top of a page: its verdict, first picture."""
    import sys

    page, target = map(Path, sys.argv[1:3])
    with open_browser() as browser:
        browser.open(page, 1280)
        browser.photograph(target, {"x": 0, "y": 0, "width": 1280, "height": 1090})


if __name__ == "__main__":
    main()
