"""What a run of `wattscale up` plans for, as one port, and the simulated cluster behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from agent.runtime.service import PowerAgentService
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.task_group import run_together
from deploy.cli.errors import CliError
from deploy.compose.planner_service import Planner
from deploy.demo.gpus import HardwareMeter
from deploy.demo.parts import keep_connector, make_agent, make_cluster, make_planner
from deploy.demo.prepare import Prepared

BEHIND_REAL_S = 5.0


class DemoSite(Protocol):
    """Workers, their GPUs and the load. All but ``opened`` may be called while the site is open."""

    finished: asyncio.Event
    """Set when the last request of a finite load is done."""
    meter: HardwareMeter

    def opened(self, removals: list[Callable[[], None]]) -> AbstractAsyncContextManager[None]:
        """The site for the body. ``removals``: receives what removes it where the run is ended by force."""
        ...

    @property
    def address(self) -> str:
        """Where anyone may send requests; empty where there is no such place."""
        ...

    def make_agent(self, bus: Bus, node: str) -> PowerAgentService:
        """The power agent of one node."""
        ...

    def make_planner(self, bus: Bus, holder: str) -> Planner:
        """One planner that reads the site's metrics."""
        ...

    def carry_out(self, bus: Bus, url: str) -> Coroutine[Any, Any, None]:
        """Carry scaling decisions out until cancelled. ``url``: where the bus is."""
        ...

    def load_s(self) -> float:
        """The present instant of the load, in load seconds."""
        ...

    def problems(self) -> list[str]:
        """What spoils the figures now, one line each, with what to do."""
        ...

    def totals(self) -> Mapping[str, Any]:
        """The run's figures so far, by the names of the summary."""
        ...


class PlantSite:
    """A simulated cluster as the site."""

    def __init__(self, run: Prepared) -> None:
        self._run = run
        self._cluster, self.meter = make_cluster(run)
        self.finished = self._cluster.finished
        self.address = ""

    @asynccontextmanager
    async def opened(self, _: list[Callable[[], None]]) -> AsyncIterator[None]:
        """The cluster under its load for the body; it lives in this process, so nothing is left to remove."""
        async with self._cluster:
            yield

    def make_agent(self, bus: Bus, node: str) -> PowerAgentService:
        """The power agent of one simulated node."""
        return make_agent(self._run, bus, self._cluster, self.meter, node)

    def make_planner(self, bus: Bus, holder: str) -> Planner:
        """One planner that scrapes the cluster's page."""
        return make_planner(self._run, bus, self._cluster, holder)

    def carry_out(self, bus: Bus, _: str) -> Coroutine[Any, Any, None]:
        """Start and drain simulated workers until cancelled."""
        return keep_connector(self._run, bus, self._cluster)

    def load_s(self) -> float:
        """The load's own clock."""
        return self._cluster.load_s()

    def problems(self) -> list[str]:
        """What to do where this machine simulates fewer load seconds than pass."""
        behind_s = self._cluster.behind_s()
        if behind_s <= BEHIND_REAL_S * self._cluster.speed:
            return []
        return [f"the simulated cluster is {behind_s:.0f} s of load behind: run with less --speed"]

    def totals(self) -> Mapping[str, Any]:
        """The figures of the simulated cluster."""
        return self._cluster.summary(self._run.options.ttft_ms, self._run.options.itl_ms)


@asynccontextmanager
async def running(*parts: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run ``parts`` beside the body. One that fails ends the body with its error; leaving the body stops them."""
    try:
        async with asyncio.TaskGroup() as group:
            # One task, so that a part that returns, or is cancelled from within, also fails the run.
            task = group.create_task(run_together({f"part {index}": part for index, part in enumerate(parts)}))
            yield
            task.cancel()
    except* CliError as errors:
        raise errors.exceptions[0] from None
