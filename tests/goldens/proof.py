"""The first events of many seeds of the random proof: what is published, and what the hardware makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from deploy.fault_simulation.faults import Faults
from deploy.fault_simulation.planner_process import PlannerProcess
from deploy.fault_simulation.world import World
from planner.domain.config import Covers
from planner.domain.plan import PowerDecision
from tests.goldens import shown
from tests.goldens.source import Line

SEEDS = 200
STRETCHES, EVENTS = 4, 125
PARTS = tuple(f"{what}-{at + 1}" for at in range(STRETCHES) for what in ("decisions", "caps"))
"""A seed's run is digested in stretches of ``EVENTS`` events, so that a difference says when it began."""


def _keep(kept: list[shown.Shown], planner: PlannerProcess) -> None:
    """Note every batch that the bus stored, with its epoch and the virtual time."""
    deliver = planner.delivered

    def delivered(orders: tuple[PowerDecision, ...], epoch: int) -> None:
        for order in orders:
            reasons = shown.links(order.reasons)
            kept.append((shown.number(planner.timeline.now_s), epoch, shown.power_order(order), reasons))
        deliver(orders, epoch)

    planner.delivered = delivered  # type: ignore[method-assign, assignment]


def trajectory(seed: str) -> tuple[shown.Shown, ...]:
    """Decisions and caps of each stretch of a seed's run, where the budget covers all GPUs and no profiler has any."""
    world = World(seed, None, Covers.ALL_GPUS, holds=False)
    faults = Faults(world, frozenset(), None)
    decisions: list[shown.Shown] = []
    for planner in world.planners:
        _keep(decisions, planner)
    world.start()
    faults.start()
    parts: list[shown.Shown] = []
    limits = shown.hardware(world)
    for _ in range(STRETCHES):
        caps = [limits]
        for _ in range(EVENTS):
            handler, argument = world.timeline.pop()
            handler(argument)
            if (now := shown.hardware(world)) != limits:
                limits = now
                caps.append((shown.number(world.timeline.now_s), limits))
        parts += [tuple(decisions), tuple(caps)]
        decisions.clear()
    return tuple(parts)


def lines(seeds: int = SEEDS) -> Iterator[Line]:
    """One line a seed."""
    for key, run in ((f"seed {n}", partial(trajectory, f"{n}.0")) for n in range(seeds)):
        yield Line(key, run())
