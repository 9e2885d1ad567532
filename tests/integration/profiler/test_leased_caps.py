"""`wattscale profile --caps` beside a power agent: a real nats-server, planner, agent and profiler, each a process; the
caps reach the library with NVML's ABI through the planner alone, and go with the profiler, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.nats.embedded import EmbeddedServer
from planner.profiler.online.measurement_log import FILE
from tests.contract.bus import until
from tests.doubles.nvml.loaded import library_environment
from tests.doubles.nvml.state import FakeNvml
from tests.integration.agent.processes import RunningAgent
from tests.integration.planner.test_commands import settings
from tests.integration.profiler.test_profile_command import FAST, ROOT, config, words
from tests.integration.profiler.test_profile_under_caps import listener

GPU, PARKED_MW = 3, 200_000
BUDGET_WATTS = 1900
"""Prefill and decode want 620 and 515 W, and one GPU is parked at 200 W: 565 W are left for one that is held."""


@dataclass(frozen=True, slots=True)
class OwnedNode:
    """A node whose four GPUs a planner and an agent own. Nothing runs on them."""

    folder: Path
    server: EmbeddedServer
    fake: FakeNvml
    at_rest: list[int] = field(default_factory=list)
    """How many limits had been written when the node had come to rest."""

    def parked(self) -> bool:
        return self.fake.enforced[GPU] == PARKED_MW

    def set_since(self) -> set[int]:
        """The limits that the last GPU has had since the node came to rest."""
        return {mw for slot, mw, _ in self.fake.writes[self.at_rest[0] :] if slot == GPU}

    def within_budget(self) -> None:
        """Every sum of limits since the budget was first kept, by the library's own journal."""
        limits, kept = [700_000] * 4, False
        for slot, mw, _ in self.fake.writes:
            limits[slot] = mw
            kept = kept or sum(limits) <= BUDGET_WATTS * 1000
            assert not kept or sum(limits) <= BUDGET_WATTS * 1000, limits

    @asynccontextmanager
    async def profiler(self, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A profiling run of an engine on the last GPU; killed at the end if it still runs."""
        (self.folder / "out").mkdir(exist_ok=True)
        bus = ("--nats-url", self.server.url, "--gpus", str(GPU))
        engine = config(self.folder, FAST)
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main"),
            *words(self.folder, engine, "--max-context-length", "500", "--max-in-flight", "1", *bus, *more),
            cwd=ROOT,
            env=library_environment(self.fake),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            yield started
        finally:
            if started.returncode is None:
                started.kill()
            await started.wait()


@asynccontextmanager
async def planning(file: Path, folder: Path) -> AsyncIterator[None]:
    """A planner, killed at the end. Nothing reads its log while it runs, so that it goes to a file."""
    with (folder / "planner.log").open("wb") as log:
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", "planner", "run", "-c", str(file)), cwd=ROOT, stderr=log
        )
    try:
        yield
    finally:
        started.kill()
        await started.wait()


@asynccontextmanager
async def owned(folder: Path) -> AsyncIterator[OwnedNode]:
    """The node, at rest."""
    fake = FakeNvml(folder / "nvml-state", 4)
    async with EmbeddedServer(folder / "nats") as server:
        site = {"budget_watts": BUDGET_WATTS, "settle_s": 0.2}
        file = settings(folder, None, bus={"servers": [server.url]}, sites={"row-1": site}, interval_s=2.0)
        async with planning(file, folder), RunningAgent("node-1", server.url, fake, folder):
            node = OwnedNode(folder, server, fake)
            await until(node.parked, "the GPUs without a pool are parked", 90)
            node.at_rest.append(len(fake.writes))
            yield node


@pytest.mark.parametrize(
    "how",
    [
        "SIGKILL",
        pytest.param("SIGTERM", marks=pytest.mark.nightly),
        pytest.param("engine ends", marks=pytest.mark.nightly),
    ],
)
async def test_caps_reach_the_hardware_within_the_budget_and_go_however_the_profiler_ends(tmp_path, how):
    async with owned(tmp_path) as node:
        log = tmp_path / "out" / FILE
        async with node.profiler("--caps", "400,500") as run:
            await until(lambda: log.exists() and b'"cap_watts":400' in log.read_bytes(), "a point under 400 W", 240)
            assert node.fake.enforced[GPU] == 400_000
            assert b'"cap_watts":500' in log.read_bytes()
            if how == "engine ends":
                port = (tmp_path / "out" / "engine_tp1.log").read_text().split()[2].rpartition(":")[2]
                os.kill(listener(int(port)), signal.SIGKILL)
            else:
                run.send_signal(getattr(signal, how))
            _, err = await asyncio.wait_for(run.communicate(), 120)
        assert run.returncode == {"SIGTERM": 130, "SIGKILL": -9, "engine ends": 1}[how], err
        await until(node.parked, "the GPU is parked again", 240)
        assert node.set_since() == {PARKED_MW, 400_000, 500_000}
        node.within_budget()


@pytest.mark.nightly
async def test_a_cap_that_the_budget_does_not_carry_is_not_set_and_the_run_says_why(tmp_path):
    async with owned(tmp_path) as node:
        async with node.profiler("--caps", "700") as run:
            _, err = await asyncio.wait_for(run.communicate(), 400)
        assert run.returncode == 1
        assert b"--caps 700: not in force within 120 s" in err
        assert b"W are missing beside what pools want and parked GPUs keep" in err
        assert node.set_since() == set()
