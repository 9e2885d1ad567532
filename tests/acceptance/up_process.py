"""Starts `wattscale up` as people do, as a process of its own, and observes it from outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.running_processes import children

WATTSCALE = str(Path(sys.executable).parent / "wattscale")


@dataclass
class UpProcess:
    """A running `up`. ``home`` holds its record of where it listens."""

    process: asyncio.subprocess.Process
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_STATE_HOME": str(self.home)}

    @property
    def url(self) -> str:
        record = self.home / "wattscale" / "last-up.json"
        return str(json.loads(record.read_text())["nats_url"])

    async def listening(self, seconds: float = 90.0) -> None:
        """Wait until it has printed its address."""
        record = self.home / "wattscale" / "last-up.json"
        async with asyncio.timeout(seconds):
            while not record.exists():
                assert self.process.returncode is None, await self.stderr()
                await asyncio.sleep(0.05)

    async def stderr(self) -> str:
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    async def summary(self, seconds: float = 120.0) -> dict[str, Any]:
        """Wait for the end; the JSON on standard output."""
        out, err = await asyncio.wait_for(self.process.communicate(), seconds)
        assert self.process.returncode == 0, err.decode()
        value: dict[str, Any] = json.loads(out)
        return value

    async def cli(self, *arguments: str, seconds: float = 90.0) -> tuple[int, str, str]:
        """Run another `wattscale` command of the same user: (exit code, stdout, stderr)."""
        return await run_cli(*arguments, environment=self.environment, seconds=seconds)

    def children(self, name: str = "") -> list[int]:
        """Process ids of the direct children: the embedded server, and the shell that ends it with its parent.

        ``name``: only those of that program.
        """
        return children(self.process.pid, name)


async def run_cli(
    *arguments: str, environment: dict[str, str] | None = None, seconds: float = 90.0
) -> tuple[int, str, str]:
    """Run `wattscale ARGUMENTS` to its end."""
    process = await asyncio.create_subprocess_exec(
        WATTSCALE, *arguments, stdout=-1, stderr=-1, env=environment or {**os.environ}
    )
    out, err = await asyncio.wait_for(process.communicate(), seconds)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def up(home: Path, *arguments: str) -> AsyncIterator[UpProcess]:
    """`wattscale up --json ARGUMENTS`, ended with SIGTERM if it still runs."""
    process = await asyncio.create_subprocess_exec(
        WATTSCALE, "up", "--json", *arguments, stdout=-1, stderr=-1, env={**os.environ, "XDG_STATE_HOME": str(home)}
    )
    try:
        yield UpProcess(process, home)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.communicate(), 60)
            except TimeoutError:
                process.kill()
                await process.communicate()
                raise


@dataclass
class Outsider:
    """A subscriber that knows nothing but NATS and JSON, as an orchestrator in another language would."""

    client: Client
    bodies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def of(self, *tokens: str) -> list[dict[str, Any]]:
        """Bodies whose subject begins with ``wattscale.v1.<tokens>``."""
        start = "wattscale.v1." + ".".join(tokens)
        return [body for subject, body in self.bodies if subject.startswith(start)]

    async def until(self, *tokens: str, count: int = 1, seconds: float = 90.0) -> list[dict[str, Any]]:
        """Wait for ``count`` bodies."""
        async with asyncio.timeout(seconds):
            while len(self.of(*tokens)) < count:
                await asyncio.sleep(0.02)
        return self.of(*tokens)


@asynccontextmanager
async def outsider(url: str) -> AsyncIterator[Outsider]:
    """Listen to everything."""
    client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    watching = Outsider(client)
    live: list[Msg] = []
    known: set[tuple[str, bytes]] = set()

    async def keep(message: Msg) -> None:
        if (message.subject, message.data) not in known:
            known.add((message.subject, message.data))
            watching.bodies.append((message.subject, json.loads(message.data)))

    async def keep_live(message: Msg) -> None:
        live.append(message)
        if listening:
            await keep(message)

    # First live, then what was: what comes in between is in one of the two, or in both.
    listening = False
    await client.subscribe("wattscale.v1.>", cb=keep_live)
    await client.flush()
    for stream, subject in (("WATTSCALE_DECISIONS", "decision"), ("WATTSCALE_ACKS", "ack")):
        await _history(client, stream, f"wattscale.v1.{subject}.>", keep)
    listening = True
    for message in live[:]:
        await keep(message)
    try:
        yield watching
    finally:
        await client.close()


async def _history(client: Client, stream: str, subject: str, keep: Callable[[Msg], Awaitable[None]]) -> None:
    """What the stream holds already, in order."""
    pull = await client.jetstream().pull_subscribe(subject, stream=stream)
    try:
        while True:
            for message in await pull.fetch(100, timeout=0.5):
                await keep(message)
                await message.ack()
    except TimeoutError:
        await pull.unsubscribe()
