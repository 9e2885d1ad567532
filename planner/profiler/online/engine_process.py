"""Starts an engine for a TP size by a command template, waits until it serves, and ends it.

The engine is a process group of its own. A guard process ends the group when the profiler ends in whatever way: it
reads a pipe that only the profiler holds open.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from planner.profiler.online.openai_client import EngineClient, EngineError

TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "vllm": ("vllm", "serve", "{model}", "--host", "127.0.0.1", "--port", "{port}", "--tensor-parallel-size", "{tp}"),
    "sglang": (
        *("python3", "-m", "sglang.launch_server", "--model-path", "{model}", "--host", "127.0.0.1"),
        *("--port", "{port}", "--tp-size", "{tp}", "--enable-metrics", "--enable-cache-report"),
    ),
    "trtllm": ("trtllm-serve", "{model}", "--host", "127.0.0.1", "--port", "{port}", "--tp_size", "{tp}"),
}
"""Each backend's command; ``{model}``, ``{tp}`` and ``{port}`` are filled in, further arguments follow."""
GUARD = 'read -r _; kill -TERM "-$1" 2>/dev/null; sleep 5; kill -KILL "-$1" 2>/dev/null'
POLL_S = 0.2
ENDS_WITHIN_S = 20.0
LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class EngineCommand:
    """How engines are started. ``gpus``: what ``CUDA_VISIBLE_DEVICES`` names for the largest TP size; empty: unset.

    ``url``: where the engine serves, with ``{port}``.
    """

    words: tuple[str, ...]
    model: str
    environment: Mapping[str, str]
    gpus: tuple[str, ...]
    starts_within_s: float

    def filled(self, tp: int, port: int) -> list[str]:
        """The command of one engine."""
        values = {"{model}": self.model, "{tp}": str(tp), "{port}": str(port)}
        filled = []
        for word in self.words:
            for name, value in values.items():
                word = word.replace(name, value)
            filled.append(word)
        return filled


class StartedEngines:
    """Engines that this run starts, one at a time. Their output goes to ``engine_tp<N>.log`` in ``folder``.

    ``key``: what they want of whoever asks; empty for none.
    """

    def __init__(self, command: EngineCommand, folder: Path, timeout_s: float, key: str = "") -> None:
        self._command = command
        self._folder = folder
        self._timeout_s = timeout_s
        self._key = key

    @contextlib.asynccontextmanager
    async def engine(self, tp: int) -> AsyncIterator[EngineClient]:
        """A client of a fresh engine of ``tp`` GPUs. Raises EngineError where it does not come to serve."""
        port = free_port()
        words = self._command.filled(tp, port)
        environment = {**os.environ, **self._command.environment}
        if self._command.gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._command.gpus[:tp])
        log = self._folder / f"engine_tp{tp}.log"
        with log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineError(f"cannot start {words[0]}: {error.strerror or error}") from error
        guard = None
        try:
            guard = await _guard(process.pid)
            async with EngineClient(f"http://127.0.0.1:{port}", key=self._key, timeout_s=self._timeout_s) as client:
                await self._serves(client, process, words[0], log)
                yield client
        finally:
            await _end_group(process)
            if guard is not None:
                with contextlib.suppress(ProcessLookupError):
                    guard.kill()
                await guard.wait()

    async def _serves(self, client: EngineClient, process: asyncio.subprocess.Process, name: str, log: Path) -> None:
        try:
            async with asyncio.timeout(self._command.starts_within_s):
                while not await client.is_healthy():
                    if process.returncode is not None:
                        raise EngineError(f"{name} ended with {process.returncode} before it served: {_tail(log)}")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            seconds = self._command.starts_within_s
            raise EngineError(f"{name} does not serve {seconds:g} s after its start: {_tail(log)}") from None


@dataclass(frozen=True, slots=True)
class EndpointEngine:
    """An engine that runs already."""

    url: str
    key: str
    timeout_s: float

    @contextlib.asynccontextmanager
    async def engine(self, tp: int) -> AsyncIterator[EngineClient]:
        """A client of it; ``tp`` is what it was started with."""
        del tp
        async with EngineClient(self.url, key=self.key, timeout_s=self.timeout_s) as client:
            yield client


def free_port() -> int:
    """A port that no one listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def _guard(group: int) -> asyncio.subprocess.Process:
    """The process that ends ``group`` after this one. Raises EngineError."""
    words = ("sh", "-c", GUARD, "sh", str(group))
    try:
        return await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.PIPE, start_new_session=True)
    except OSError as error:
        raise EngineError(f"cannot start {words[0]}: {error.strerror or error}") from error


async def _end_group(process: asyncio.subprocess.Process) -> None:
    """End the engine and all that it started."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, how)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDS_WITHIN_S):
                await process.wait()


def _tail(log: Path) -> str:
    """The last lines of a log, in one line."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            content = file.read()
    except OSError:
        content = b""
    lines = [line.strip() for line in content.decode(errors="replace").splitlines() if line.strip()]
    return f"{' | '.join(lines[-LAST_LINES:]) or 'it printed nothing'} ({log})"
