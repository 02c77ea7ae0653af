"""Chromium, driven over its DevTools protocol through a pipe: no port, no library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
from pathlib import Path
from typing import Any

START_SECONDS = 120


class Browser:
    """One headless browser. profile: a folder of its own, so that it shares nothing with anybody's."""

    def __init__(self, program: str, profile: Path) -> None:
        ours, theirs = [os.pipe(), os.pipe()], (3, 4)  # it reads the one and writes the other
        child = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (ours[0][0], ours[1][1])]
        os.close(ours[0][0])
        os.close(ours[1][1])

        def set_up() -> None:
            for fd, wanted in zip(child, theirs, strict=True):
                os.dup2(fd, wanted)

        options = ["--headless=new", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-extensions"]
        options += ["--no-sandbox"] if os.geteuid() == 0 else []
        self._process = subprocess.Popen(
            [program, *options, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=set_up,
            pass_fds=theirs,
        )
        for fd in child:
            os.close(fd)
        self._out, self._in = os.fdopen(ours[0][1], "wb"), os.fdopen(ours[1][0], "rb")
        self._rest = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def close(self) -> None:
        """End it."""
        try:
            self.send("Browser.close")
            self._process.wait(START_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()
            self._out.close()
            self._in.close()

    def send(self, method: str, session: str | None = None, /, **parameters: Any) -> dict[str, Any]:
        """The answer to one command. Events that come before it are kept."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        self._out.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        self._out.flush()
        while (found := self._read()).get("id") != self._number:
            self.events.append(found)
        assert "error" not in found, f"{method}: {found['error']}"
        result: dict[str, Any] = found["result"]
        return result

    def wait_for(self, method: str, session: str) -> None:
        """Until an event came."""
        while not any(event.get("method") == method and event.get("sessionId") == session for event in self.events):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._in.fileno(), 2**20)
            assert more, f"the browser ended with {self._process.poll()}"
            self._rest += more
        one, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(one)
        return message


class Tab:
    """A page that is open, at a size. scripts: whether its JavaScript runs."""

    def __init__(
        self,
        browser: Browser,
        page: Path,
        *,
        width: int = 1280,
        height: int = 900,
        dark: bool = False,
        scripts: bool = True,
        fragment: str = "",
    ) -> None:
        self.browser = browser
        self.target = browser.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.send("Target.attachToTarget", targetId=self.target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.send("Page.navigate", url=page.absolute().as_uri() + fragment)
        browser.wait_for("Page.loadEventFired", self.session)

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command to this page."""
        return self.browser.send(method, self.session, **parameters)

    def evaluate(self, script: str) -> Any:
        """The value of an expression of JavaScript; the tests' own scripts run in every page."""
        answer = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """A key, down and up."""
        for kind in ("keyDown", "keyUp"):
            more = {"text": text} if text and kind == "keyDown" else {}
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def events(self, method: str) -> list[dict[str, Any]]:
        """What the browser told of this page under this name."""
        return [
            event
            for event in self.browser.events
            if event.get("sessionId") == self.session and event["method"] == method
        ]

    def complaints(self) -> list[str]:
        """What the console says: errors, warnings, and what the page's own policy refused."""
        mine = [event for event in self.browser.events if event.get("sessionId") == self.session]
        found = [event["params"]["entry"]["text"] for event in mine if event["method"] == "Log.entryAdded"]
        found += [str(event["params"]) for event in mine if event["method"] == "Runtime.exceptionThrown"]
        return found + [str(event["params"]) for event in mine if event["method"] == "Runtime.consoleAPICalled"]

    def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole page."""
        return base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def printed(self) -> bytes:
        """The page as PDF, as the browser prints it."""
        return base64.b64decode(self.send("Page.printToPDF", preferCSSPageSize=True, printBackground=False)["data"])

    def close(self) -> None:
        """Close the page."""
        self.browser.send("Target.closeTarget", targetId=self.target)
