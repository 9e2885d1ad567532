"""A real bus, a connector process with engine processes, and clients that route by the connector's endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from bus_schemas import v1
from bus_schemas.jetstream import consumers
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last
from deploy.engine.answers import answer_to
from tests.contract.bus import bench, until
from tests.free_ports import free_port

ROOT = Path(__file__).parents[3]
DEPLOYMENT = "default-demo"
SEED = 3
ITL_S = 0.2
LINES = (
    *("--prefill-base-ms", "1", "--prefill-ms-per-token", "0", "--itl-base-ms", str(1000 * ITL_S)),
    *("--itl-ms-per-request", "0", "--itl-ms-per-kv-token", "0"),
)


class LocalSite:
    """One deployment with one pool of engines. ``close`` ends whatever the connector started."""

    def __init__(self, bus: Bus, url: str, folder: Path, pool: str, settings: dict[str, Any]) -> None:
        self.bus = bus
        self.pool = pool
        self.state = folder / "state"
        self.log = folder / "connector.log"
        self._settings = folder / "connector.yaml"
        self._process: asyncio.subprocess.Process | None = None
        self._decisions = 0
        engine = [sys.executable, "-m", "deploy.cli.main", "engine", "--port", "{port}", "--seed", str(SEED), *LINES]
        block = {"command": engine, "folder": str(ROOT), "environment": {"PYTHONPATH": str(ROOT)}, **settings}
        self.pages = free_port()
        content = {
            "deployment": DEPLOYMENT,
            "nats": {"servers": [url]},
            "claim_ttl_s": 1,
            "http": {"port": self.pages},
            "state_folder": str(self.state),
            "gpus": [f"GPU-{index}" for index in range(6)],
            "first_port": free_port(),
            "ports": 100,
            "pools": {pool: block},
        }
        self._settings.write_text(yaml.safe_dump(content))

    async def start(self, *words: str) -> None:
        """Start the connector."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(
                    sys.executable,
                    "-m",
                    "deploy.cli.main",
                    "connector",
                    "local",
                    "--settings",
                    str(self._settings),
                    *words,
                ),
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )

    async def stop(self, number: signal.Signals) -> int:
        """Signal the connector and wait for its end. Returns its exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), 60)

    async def decide(self, replicas: int, **other: int) -> int:
        """Publish a decision. Returns its id."""
        number = self._decisions
        self._decisions += 1
        counts = {self.pool: replicas, **other}
        decision = v1.ScalingDecision(
            time=datetime.now(UTC),
            deployment=DEPLOYMENT,
            decision_id=number,
            incarnation="one",
            epoch=1,
            pools={name: v1.PoolTarget(role="decode", replicas=count) for name, count in counts.items()},
        )
        await publish(self.bus, self.bus.subjects.decision_scaling(DEPLOYMENT), decision, f"d{number}")
        return number

    async def ack(self) -> v1.ScalingAck | None:
        """The newest acknowledgement."""
        found = await last(self.bus, self.bus.subjects.ack_scaling(DEPLOYMENT))
        return found.message if found is not None and isinstance(found.message, v1.ScalingAck) else None

    async def acked(self, what: str, holds: Callable[[v1.ScalingAck], bool]) -> v1.ScalingAck:
        """The newest acknowledgement once it is as ``holds`` says."""

        async def read() -> v1.ScalingAck | None:
            ack = await self.ack()
            return ack if ack is not None and holds(ack) else None

        try:
            found = await until(read, what, 120)
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {await self.ack()}; log:\n{self.log.read_text()}") from None
        assert found is not None
        return found

    def workers(self) -> dict[str, dict[str, Any]]:
        """The connector's record, by worker."""
        return {one["worker"]: one for one in json.loads((self.state / "workers.json").read_text())["workers"]}

    def endpoints(self) -> list[str]:
        """Where requests may go now."""
        try:
            return [one["url"] for one in json.loads((self.state / "endpoints.json").read_text())["workers"]]
        except FileNotFoundError:
            return []

    def logged(self, text: str) -> bool:
        """Whether the connector has logged this text."""
        return text in self.log.read_text()

    async def close(self) -> None:
        """End the connector, and the workers of its record by number and mark."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        with contextlib.suppress(FileNotFoundError):
            for one in self.workers().values():
                with contextlib.suppress(OSError):
                    if one["mark"].encode() in Path(f"/proc/{one['pid']}/environ").read_bytes():
                        os.killpg(one["pid"], signal.SIGKILL)


@asynccontextmanager
async def local_site(folder: Path, pool: str, **settings: Any) -> AsyncIterator[LocalSite]:
    """A bus with the deployment's consumer, and a connector that is not started yet."""
    async with bench() as (server, bus):
        await consumers.ensure(bus, Durable.scaling(bus, DEPLOYMENT))
        site = LocalSite(bus, server.url, folder, pool, settings)
        try:
            yield site
        finally:
            await site.close()


@dataclass(slots=True)
class Clients:
    """Clients that each keep one request in flight until `finish`. An answer that is not whole ends them all."""

    site: LocalSite
    session: aiohttp.ClientSession
    answers: int = 0
    refused: int = 0
    streaming: set[str] = field(default_factory=set)
    done: bool = False

    async def keep(self, client: int, most_tokens: int) -> None:
        """One client: answers of 1 to ``most_tokens`` tokens, all lengths of time equally often by their logarithm."""
        rng = random.Random(client)
        number = 0
        while not self.done:
            tokens = max(1, round(most_tokens ** rng.random()))
            await self.ask(rng, f"client {client} request {number}", tokens)
            number += 1

    async def ask(self, rng: random.Random, prompt: str, tokens: int) -> None:
        """One request, sent elsewhere where it is refused, and its whole answer."""
        body = {"prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        while True:
            urls = self.site.endpoints()
            if urls:
                url = rng.choice(urls)
                try:
                    async with self.session.post(f"{url}/v1/completions", json=body) as response:
                        if response.status == 200:
                            await self._whole(response, prompt, tokens)
                            return
                        assert response.status == 503, response.status
                except aiohttp.ClientConnectorError:
                    pass
                except aiohttp.ClientOSError:
                    # A connection that the worker had not accepted when its process ended is reset.
                    if url in self.site.endpoints():
                        raise
            # A worker that leaves refuses what is new; nothing of this request was computed.
            self.refused += 1
            await asyncio.sleep(0.1)

    async def _whole(self, response: aiohttp.ClientResponse, prompt: str, tokens: int) -> None:
        self.streaming.add(prompt)
        try:
            events = (await response.text()).split("\n\n")
        finally:
            self.streaming.discard(prompt)
        assert events[-2:] == ["data: [DONE]", ""], (prompt, events[-2:])
        text = "".join(json.loads(one.removeprefix("data: "))["choices"][0]["text"] for one in events[:-2])
        expected = answer_to(
            prompt.split(), SEED, max_tokens=tokens, min_tokens=0, mean_tokens=1.0, ignore_eos=True
        ).text()
        assert text == expected, prompt
        self.answers += 1


@asynccontextmanager
async def clients(site: LocalSite, count: int, most_tokens: int) -> AsyncIterator[Clients]:
    """That many clients beside the body; after it each waits for the rest of its answer."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session, asyncio.TaskGroup() as group:
        made = Clients(site, session)
        for number in range(count):
            group.create_task(made.keep(number, most_tokens))
        yield made
        made.done = True
