"""One planner or power agent of a tour as a process: what `PartProcess` starts. Ends when its parent does.

The first line of standard input is its order in JSON; a planner prints the address of its dashboard.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.task_group import ended
from deploy.demo.options import UpOptions
from deploy.demo.parts import agent_on, planner_on, reach
from deploy.demo.prepare import Prepared, prepare
from deploy.event_loop import run as on_event_loop
from deploy.event_loop import until_signal
from deploy.tour.rack_driver import RackDriver, RackOwners
from planner.runtime.config.settings import MetricsSettings


@dataclass(frozen=True, slots=True)
class PartOrder:
    """What a process is. ``node``: an agent's; empty for a planner."""

    name: str
    nats_url: str
    metrics_url: str
    socket: str
    node: str
    nodes: int
    gpus_per_node: int
    speed: float

    def text(self) -> str:
        """One line."""
        return json.dumps(asdict(self)) + "\n"

    def prepared(self) -> Prepared:
        """The same run as the parent's, from the same options."""
        return prepare(UpOptions(nodes=self.nodes, gpus_per_node=self.gpus_per_node, speed=self.speed))


def main() -> int:
    """Run until SIGTERM, SIGINT or the end of standard input."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    order = PartOrder(**json.loads(sys.stdin.readline()))
    on_event_loop(until_signal(_work(order)))
    return 0


async def _work(order: PartOrder) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    run = order.prepared()
    bus = await reach(run, order.nats_url, order.name)
    try:
        await (_agent(bus, order) if order.node else _planner(bus, order, run))
    finally:
        await bus.close()


def _end_with_parent() -> None:
    """Standard input ends when the parent does, in whatever way."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


async def _planner(bus: Bus, order: PartOrder, run: Prepared) -> None:
    metrics = MetricsSettings(source="simulated", urls=(order.metrics_url,))
    planner = planner_on(run, bus, metrics, order.name)
    running = asyncio.create_task(planner.run())
    try:
        if planner.dashboard is not None:
            await planner.dashboard.serving.wait()
            print(planner.dashboard.url, flush=True)
        await running
    finally:
        await ended(running)


async def _agent(bus: Bus, order: PartOrder) -> None:
    path = Path(order.socket)
    await agent_on(bus, order.node, RackDriver(path, order.node), RackOwners(path, order.node)).run()


if __name__ == "__main__":
    sys.exit(main())
