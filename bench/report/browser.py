"""A headless Chromium, by its own pipe: for pictures of charts, and for looking at a page in a test.

The DevTools protocol over two descriptors (``--remote-debugging-pipe``): messages are JSON, each ended by a zero byte,
requests on descriptor 3, answers and events on 4. No port is opened and no driver needed.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --disable-dev-shm-usage --hide-scrollbars "
    "--force-color-profile=srgb --remote-debugging-pipe"
).split()
DEADLINE = 60.0  # seconds for one answer
GRACE = 10.0  # seconds to end by itself


class BrowserError(Exception):
    """No browser, or it did not do what it was asked: one line."""


def program() -> str:
    """Its path; "" when there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), "")


class Browser:
    """One page. A context manager; its profile is a directory of its own, removed with it."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._number, self._session, self._rest = 0, "", b""

    def __enter__(self) -> Browser:
        with contextlib.ExitStack() as stack:
            path = program()
            if not path:
                raise BrowserError(f"no {' or '.join(PROGRAMS)} in PATH: install chromium")
            profile = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="bench-browser-", ignore_cleanup_errors=True)
            )
            self._start(stack, path, profile)
            page = self.ask("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.ask(f"{domain}.enable")
            self._stack = stack.pop_all()
        return self

    def _start(self, stack: contextlib.ExitStack, path: str, profile: str) -> None:
        """Start it with its ends of two pipes as descriptors 3 and 4."""
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        for end in (self._in, self._out):
            stack.callback(os.close, end)
        # out of the way of 3 and 4, so that neither is overwritten before it is moved
        moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (theirs_in, theirs_out)]
        log = os.open(os.path.join(profile, "log"), os.O_WRONLY | os.O_CREAT, 0o600)
        actions = [(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        actions += [(os.POSIX_SPAWN_DUP2, end, 3 + at) for at, end in enumerate(moved)]
        environment = {**os.environ, "HOME": profile, "XDG_CONFIG_HOME": profile, "XDG_CACHE_HOME": profile}
        argv = [path, *FLAGS, f"--user-data-dir={profile}"]
        try:
            pid = os.posix_spawn(path, argv, environment, file_actions=actions, setpgroup=0)
        finally:
            for end in (theirs_in, theirs_out, *moved, log):
                os.close(end)
        stack.callback(_stop, pid)
        stack.callback(self._close)

    def _close(self) -> None:
        with contextlib.suppress(BrowserError, OSError):
            self._session = ""
            self.ask("Browser.close")

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one request. Events that come in between are kept. Raises BrowserError."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        rest = memoryview(json.dumps(message).encode() + b"\0")
        while rest:
            rest = rest[os.write(self._out, rest) :]
        while True:
            found = self._receive()
            if found.get("id") == self._number:
                if "error" in found:
                    raise BrowserError(f"{method}: {found['error'].get('message', found['error'])}")
                answer: dict[str, Any] = found["result"]
                return answer
            self.events.append(found)

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + DEADLINE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], max(deadline - time.monotonic(), 0))
            more = os.read(self._in, 1 << 16) if ready else b""
            if not more:
                raise BrowserError(
                    f"the browser said nothing for {DEADLINE:.0f} s" if not ready else "the browser ended"
                )
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(text)
        return found

    def open(self, path: str, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Show the file PATH in a window of so many CSS pixels, for a system that is DARK or not."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.media(prefers_color_scheme="dark" if dark else "light")
        seen = len(self.events)
        self.ask("Page.navigate", url=Path(os.path.abspath(path)).as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events[seen:]):
            self.events.append(self._receive())

    def media(self, kind: str = "", **features: str) -> None:
        """``media("print")``, ``media(prefers_color_scheme="dark")``."""
        given = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.ask("Emulation.setEmulatedMedia", media=kind, features=given)

    def value(self, expression: str) -> Any:
        """What a JavaScript EXPRESSION is. Raises BrowserError when it throws."""
        found = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise BrowserError(f"{expression[:60]}: {found['exceptionDetails'].get('text')}")
        return found["result"].get("value")

    def picture(self, clip: Mapping[str, float] | None = None, scale: float = 1.0) -> bytes:
        """A PNG of the whole page, or of CLIP (x, y, width, height) of it."""
        if clip is None:
            size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"]}
        found = self.ask(
            "Page.captureScreenshot", format="png", captureBeyondViewport=True, clip={**clip, "scale": scale}
        )
        return base64.b64decode(found["data"])

    def pdf(self) -> bytes:
        """The page as it would be printed."""
        return base64.b64decode(self.ask("Page.printToPDF", printBackground=False, preferCSSPageSize=True)["data"])


def _stop(pid: int) -> None:
    """Wait for PID, which was asked to end; when it does not, it is killed with all of its group."""
    deadline = time.monotonic() + GRACE
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # a child that outlived it
