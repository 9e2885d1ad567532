"""A site of processes of two releases: agents with cards that outlive them, planners, one nats-server.

The limits are summed from the journal that the cards keep of every write, whichever process made it.
"""

from __future__ import annotations

import asyncio
import heapq
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import yaml

from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream.reader import last
from bus_schemas.v1 import Lease
from deploy.fault_simulation.checker import Budget, IssuedCommand
from deploy.nats.embedded import EmbeddedServer
from planner.domain.units import Milliwatts
from tests.acceptance.test_budget_storm import Ledger
from tests.contract.bus import connected, until
from tests.contract.previous.previous_code import OLD_MAIN, ROOT
from tests.doubles.engine_metrics import EngineMetrics, MetricsServer
from tests.doubles.nvml.loaded import library_environment
from tests.doubles.nvml.state import FakeNvml
from tests.unit.deploy.cli.test_simulate import profile_folder

MODEL, SITE, NODES, GPUS_PER_NODE = "llama-8b", "row", ("node-0", "node-1"), 2
LEASE_S = 10.0
FIRST_WATTS = 2900.0
"""The four cards at their default limits hold 2,800 W."""
WITHIN_S = 60.0


class MixedSite:
    """``processes`` by name, such as ``node-0`` or ``planner-b``; each has a log of its own."""

    def __init__(self, folder: Path, previous: Path, url: str, metrics_url: str) -> None:
        self.folder, self.url, self.metrics_url = folder, url, metrics_url
        self.code = {"before": previous, "today": ROOT}
        self.profile = profile_folder(folder)
        self.cards = {node: self._cards(node, index) for index, node in enumerate(NODES)}
        self.processes: dict[str, asyncio.subprocess.Process] = {}
        self.budgets = [(monotonic(), FIRST_WATTS)]

    def _cards(self, node: str, index: int) -> FakeNvml:
        cards = FakeNvml(self.folder / f"{node}-cards", GPUS_PER_NODE)
        for number, gpu in enumerate(cards.gpus):
            gpu.uuid = f"GPU-{index}{number}000000-0000-0000-0000-000000000000".encode()
        return cards

    def _settings(self, name: str, content: dict[str, Any]) -> str:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        return str(path)

    async def _start(self, name: str, release: str, *words: str, environment: dict[str, str] | None = None) -> None:
        code = self.code[release]
        with (self.folder / f"{name}-{release}.log").open("ab") as log:
            self.processes[name] = await asyncio.create_subprocess_exec(
                *(sys.executable, *OLD_MAIN, *words),
                cwd=code,
                env={**os.environ, **(environment or {}), "PYTHONPATH": str(code)},
                stdout=log,
                stderr=log,
            )

    async def agent(self, node: str, release: str) -> None:
        """An agent of that release takes the place of the node's present one, which ends first, as in a DaemonSet."""
        await self.end(node)
        content = {
            "node": node,
            "nats": {"servers": [self.url]},
            "http": {"port": 0},
            "kubernetes": {"mode": "off"},
            "telemetry_interval_s": 0.5,
        }
        words = ("agent", "power", "--settings", self._settings(node, content))
        await self._start(node, release, *words, environment=library_environment(self.cards[node]))

    async def planner(self, name: str, release: str) -> None:
        """A further planner; it stands by until the lease is free."""
        pool = {"role": "aggregated", "component": "backend", "min_replicas": 4, "max_replicas": 4}
        deployment = {
            "site": SITE,
            "model": MODEL,
            "namespace": "ns-chat",
            "profile": str(self.profile),
            "metrics": {"urls": [self.metrics_url]},
            "pools": {"decode": pool},
        }
        site = {"budget_watts": FIRST_WATTS, "expected_gpus": 4, "settle_s": 0.2, "flight_s": 0.2, "lease_s": LEASE_S}
        content = {
            "interval_s": 2,
            "bus": {"servers": [self.url]},
            "health": {"port": None},
            "lease": {"ttl_s": 3, "holder": name},
            "sites": {SITE: site},
            "deployments": {"chat": deployment},
        }
        await self._start(name, release, "planner", "run", "-c", self._settings(name, content))

    async def leads(self, name: str) -> None:
        """Returns once a planner leads."""
        async with connected(self.url) as bus:

            async def holder() -> bool:
                try:
                    found = await last(bus, bus.subjects.lease())
                except BusAwayError:
                    return False  # no streams yet
                return found is not None and isinstance(found.message, Lease) and found.message.holder == name

            await until(holder, f"{name} leads", WITHIN_S, 0.2)

    async def end(self, name: str) -> None:
        """End a process in order, where it runs; it must end well."""
        process = self.processes.pop(name, None)
        if process is not None:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), WITHIN_S) == 0, self.logs()

    async def budget(self, watts: float, release: str) -> None:
        """An operator's command with the program of that release. A cut counts once it is stored, a raise before."""
        before = self.sum_watts
        if watts > self.budgets[-1][1]:
            self.budgets.append((monotonic(), watts))
        await self._start("command", release, *f"budget set {watts:g} --site {SITE} --nats-url {self.url}".split())
        assert await self.processes.pop("command").wait() == 0
        if watts < self.budgets[-1][1]:
            self.budgets.append((monotonic(), watts))
            await until(lambda: self.sum_watts <= watts, f"{before} W fall to {watts} W", WITHIN_S)
        else:
            await until(lambda: self.sum_watts > before, f"{before} W rise below {watts} W", WITHIN_S)

    @property
    def sum_watts(self) -> float:
        """What the hardware may draw now."""
        return sum(gpu.gpu.enforced for cards in self.cards.values() for gpu in cards.gpus) / 1000

    def rises_above(self) -> list[str]:
        """Writes that raised the sum above every budget of the last lease: the rule by which the proof judges."""
        first_s, first_watts = self.budgets[0]
        budget = Budget(round(first_watts * 1000))
        for at_s, watts in self.budgets[1:]:
            budget.add(IssuedCommand(Milliwatts(round(watts * 1000)), at_s, None, 0.0, at_s))
        found = []
        for (_, before), (at_s, after) in pairwise(self.ledger().sums):
            largest_mw = budget.largest_mw(max(first_s, at_s - LEASE_S * 1.02 - 1.0), at_s)
            if after > before and after * 1000 > largest_mw:
                found.append(f"{before:g} to {after:g} W under {largest_mw / 1000:g} W")
        return found

    def ledger(self) -> Ledger:
        """Every sum that there was, by the cards' own journals, beside the budgets."""
        limits = {(node, slot): 700_000 for node in NODES for slot in range(GPUS_PER_NODE)}
        sums = [(self.budgets[0][0], sum(limits.values()) / 1000)]
        for at_ns, node, slot, enforced_mw in heapq.merge(*(self._writes(node) for node in NODES)):
            limits[node, slot] = enforced_mw
            sums.append((at_ns / 1e9, sum(limits.values()) / 1000))
        return Ledger(sums=sums, budgets=self.budgets)

    def _writes(self, node: str) -> list[tuple[int, str, int, int]]:
        state = self.cards[node].state
        rows = [state.journal[at] for at in range(state.journal_next)]
        return [(row.at_ns, node, row.slot, row.enforced_mw) for row in rows]

    def logs(self) -> str:
        """The end of what each process printed."""
        return "\n".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in sorted(self.folder.glob("*.log")))

    async def stop(self) -> None:
        """End whatever still runs."""
        for process in self.processes.values():
            if process.returncode is None:
                process.kill()
                await process.wait()


@asynccontextmanager
async def mixed_site(folder: Path, previous: Path) -> AsyncIterator[MixedSite]:
    """A nats-server and engines under a steady load; planners and agents are up to the test."""
    engine = EngineMetrics(namespace="ns-chat")

    async def load() -> None:
        while True:
            for number in range(4):
                engine.worker(MODEL, "backend", f"decode-{number}", running=8, waiting=2, kv=0.5)
            engine.serve(MODEL, 4, isl=1000, osl=200, ttft_s=0.2, itl_s=0.02)
            await asyncio.sleep(0.2)

    async with EmbeddedServer(folder / "nats") as server, MetricsServer(engine) as metrics:
        site, loading = MixedSite(folder, previous, server.url, metrics.url), asyncio.create_task(load())
        try:
            yield site
        finally:
            await site.stop()
            loading.cancel()
            await asyncio.gather(loading, return_exceptions=True)
