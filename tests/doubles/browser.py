"""A real Chromium without a window, driven by its own DevTools protocol over a WebSocket: no driver to install.

Started on a free port with a profile of its own, ended by its process id.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

START_S = 60.0
NAMES = ("chromium", "chromium-browser", "google-chrome")


def installed() -> str:
    """The browser's program; fails in the gate and skips elsewhere where there is none."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    if os.environ.get("WATTSCALE_REQUIRE_PARTS"):
        pytest.fail("chromium is missing: apt-get install chromium")
    pytest.skip("chromium is missing: apt-get install chromium")


class BrowserTab:
    """One tab. ``problems``: errors and refused loads that the page's console reported."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.problems: list[str] = []
        self.received_bytes = 0
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for raw in self._socket:
            message = json.loads(raw.data)
            if (waiter := self._waiting.pop(message.get("id", 0), None)) is not None:
                if not waiter.done():
                    waiter.set_result(message)
                continue
            self._note(message.get("method", ""), message.get("params", {}))

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(params["exceptionDetails"])[:600])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.problems.append(json.dumps(params["args"])[:600])
        elif method == "Network.dataReceived":
            self.received_bytes += params["dataLength"]

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The protocol's answer. Raises AssertionError where it is an error."""
        number = next(self._numbers)
        waiter = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        answer = await asyncio.wait_for(waiter, START_S)
        assert "error" not in answer, answer
        found: dict[str, Any] = answer["result"]
        return found

    async def evaluate(self, script: str) -> Any:
        """The value of an expression on the page, as JSON values; promises are awaited."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def text(self, selector: str) -> str:
        """The visible text of the first element that matches; empty where there is none."""
        return str(await self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def press(self, key: str) -> None:
        """Press and release a key, as ``Tab`` or ``ArrowRight``."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowRight": 39, "ArrowLeft": 37, "End": 35, "+": 187, "0": 48}
        more = {"text": "\r"} if key == "Enter" else {}
        base = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
        await self.call("Input.dispatchKeyEvent", type="keyDown", **base, **more)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **base)

    async def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press the mouse at one place of the window, move it to another, and release it there."""
        left: dict[str, Any] = {"button": "left", "clickCount": 1}
        for kind, (x, y), more in (
            ("mouseMoved", start, {}), ("mousePressed", start, left), ("mouseMoved", end, {**left, "buttons": 1}),
            ("mouseReleased", end, left),
        ):  # fmt: skip
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    async def size(self, width: int, height: int) -> None:
        """The size of the window, in CSS pixels; a narrow one is a phone's."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def media(self, scheme: str) -> None:
        """``light`` or ``dark``, as the system's setting would be."""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def open(self, url: str) -> None:
        """Load a page."""
        await self.call("Page.navigate", url=url)

    async def as_high_as_its_page(self, width: int) -> None:
        """Make the window as high as its page, without scroll bars, and wait until all of it is painted."""
        await self.call("Emulation.setScrollbarsHidden", hidden=True)
        await self.size(width, 800)
        await self.size(width, int(await self.evaluate("document.documentElement.scrollHeight")))
        await self.evaluate("new Promise((painted) => requestAnimationFrame(() => setTimeout(painted, 200)))")

    async def screenshot(self) -> bytes:
        """What the window shows, as a PNG."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])


@asynccontextmanager
async def browser_page() -> AsyncIterator[BrowserTab]:
    """A tab of a new browser, which is ended afterwards."""
    program = installed()
    with tempfile.TemporaryDirectory(prefix="wattscale-browser-", ignore_cleanup_errors=True) as folder:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += ["--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"]
        process = await asyncio.create_subprocess_exec(
            program, *flags, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            port = await _port(Path(folder) / "DevToolsActivePort", process)
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    tabs = await answer.json()
                address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
                async with session.ws_connect(address, max_msg_size=0) as socket:
                    page = BrowserTab(socket)
                    for domain in ("Page", "Runtime", "Log", "Network"):
                        await page.call(f"{domain}.enable")
                    yield page
                    page.reader.cancel()
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 60)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _port(file: Path, process: asyncio.subprocess.Process) -> int:
    deadline = asyncio.get_running_loop().time() + START_S
    while asyncio.get_running_loop().time() < deadline:
        assert process.returncode is None, f"the browser ended with {process.returncode}"
        text = file.read_text() if file.exists() else ""
        if "\n" in text:
            return int(text.split()[0])
        await asyncio.sleep(0.05)
    raise AssertionError(f"the browser gave no port within {START_S:g} s")
