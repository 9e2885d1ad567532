"""One run: the event loop with faults, and the checker after every event."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from deploy.fault_simulation.checker import Failure, Statistics
from deploy.fault_simulation.faults import Faults
from deploy.fault_simulation.mutations import mutated
from deploy.fault_simulation.world import World
from planner.core.power.node_ledger import NOT_DECIDED, NodeLedger
from planner.core.power.site_state import free_mw

TRACE = 400
CALM_S = 100.0
"""Weather that calm, at the end of each run, must leave nothing of what happened in it: a restart, two leases of the
longest kind, a brake that lets go, and a settle time."""
Step = tuple[float, str, Any]


@dataclass(frozen=True, slots=True)
class ProofRun:
    """The parameters of a run; one command line reproduces it."""

    seed: str
    events: int
    mutation: str | None = None
    without: frozenset[str] = frozenset()
    only: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run."""

    run: ProofRun
    events: int
    virtual_s: float
    wall_s: float
    failure: Failure | None
    counts: dict[str, int]
    statistics: Statistics
    struck: tuple[tuple[int, str], ...]
    trace: tuple[str, ...] = field(default=(), repr=False)
    picture: tuple[str, ...] = field(default=(), repr=False)


def prove(run: ProofRun) -> Outcome:
    """Make one run, until its events are used up or a promise is broken."""
    started = time.perf_counter()
    with mutated(run.mutation):
        world = World(run.seed, run.mutation)
        faults = Faults(world, run.without, run.only)
        world.start()
        faults.start()
        collecting = gc.isenabled()
        gc.disable()  # frozen values make no cycles; the collector would only walk them
        try:
            count, failure, trace = _loop(world, run.events)
            if failure is None:
                failure, trace = _calm(world, faults)
        finally:
            if collecting:
                gc.enable()
    return Outcome(
        run,
        count,
        world.timeline.now_s,
        time.perf_counter() - started,
        failure,
        dict(sorted(world.counts.items())),
        world.checker.statistics,
        tuple(faults.struck),
        tuple(_trace_line(step) for step in trace) if failure else (),
        tuple(picture(world)) if failure else (),
    )


def _loop(world: World, events: int) -> tuple[int, Failure | None, deque[Step]]:
    timeline, check = world.timeline, world.checker.check
    trace: deque[Step] = deque(maxlen=TRACE)
    for count in range(1, events + 1):
        handler, argument = timeline.pop()
        trace.append((timeline.now_s, handler, argument))  # type: ignore[arg-type]
        handler(argument)
        failure = check(timeline.now_s)
        if failure is None and world.broken is not None:
            failure = Failure(timeline.now_s, "ledger", world.broken)
        if failure is not None:
            return count, failure, trace
    return events, None, trace


def _calm(world: World, faults: Faults) -> tuple[Failure | None, deque[Step]]:
    """Calm weather after the last event: what it does not restore breaks a promise, as too high a limit does."""
    faults.end()
    until_s, trace = world.timeline.now_s + CALM_S, deque[Step](maxlen=TRACE)
    failure: Failure | None = None
    while failure is None and world.timeline.now_s < until_s:
        _, failure, trace = _loop(world, 1)
    sentence = "" if failure is not None else _unmet(world)
    world.counts["calm weather judged"] += failure is None
    return (Failure(world.timeline.now_s, "liveness", sentence) if sentence else failure), trace


def _unmet(world: World) -> str:
    """What calm weather did not restore, as a sentence; empty where it restored everything."""
    leader = next((p for p in world.planners if p.state is not None and p.index == world.bus.lease_holder), None)
    if leader is None or leader.state is None:
        return f"after {CALM_S:g} calm seconds no planner leads"
    state, short, behind = leader.state, [], 0
    if state.frozen:
        return f"after {CALM_S:g} calm seconds raises are frozen by {' '.join(state.frozen)}"
    if state.holds:
        return f"after {CALM_S:g} calm seconds {state.holds[0].hold_id} still counts, whose profiler has ended"
    for card in world.cards:
        page = state.nodes.get(world.agents[card.node].node)
        if page is None:
            return f"after {CALM_S:g} calm seconds {card.gpu} is not known"
        at = page.cards.gpus.index(card.gpu)
        cap = (page.caps_mw or page.charge_mw)[at]
        if sentence := _uncovered(page, at):
            return f"after {CALM_S:g} calm seconds {sentence}"
        if cap == NOT_DECIDED:
            continue  # another's pod holds it: outside the budget
        if page.cost_mw[at] > max(card.requested_mw, cap):
            text = f"{card.gpu} is charged {page.cost_mw[at]} mW with {card.requested_mw} mW set and {cap} decided"
            return f"after {CALM_S:g} calm seconds {text}"
        wanted = (state.wants or {}).get(card.gpu)
        if wanted is not None and page.covered is not None and not page.covered[at]:
            continue  # not yet reserved: the ledger lacks the watts, or the GPU is taken
        behind += page.goal_mw is not None and page.goal_mw[at] > cap
        wish = card.floor_mw if wanted is None else max(wanted.cap_mw, card.floor_mw)
        if card.requested_mw + leader.config.smallest_step_mw <= wish:
            short.append(f"{card.gpu} stands at {card.requested_mw} of {wish} mW wanted")
    free = free_mw(state, leader.config, leader.clock_s)
    # Each GPU below its goal, a parked one too, may have its part of what is free, and a part below a step is not sent.
    if short and free > leader.config.smallest_step_mw * max(behind, len(short)):
        return f"after {CALM_S:g} calm seconds {short[0]} while {free} mW are free"
    return ""


def _uncovered(page: NodeLedger, at: int) -> str:
    """What is wrong with a GPU where the budget covers workers only; empty where nothing is."""
    if page.covered is None:
        return ""
    gpu, covered = page.cards.gpus[at], page.covered[at]
    if covered and not page.held[at] and (page.wanted is None or page.wanted[at] is None):
        return f"{gpu} has not left the budget although no pod holds it"
    if covered and page.caps_mw is not None and page.caps_mw[at] == NOT_DECIDED:
        return f"no cap is decided for {gpu}, which a worker holds"
    return ""


def _trace_line(step: tuple[float, Any, Any]) -> str:
    """One event as a line."""
    time_s, handler, argument = step
    owner = getattr(getattr(handler, "__self__", None), "name", "world")
    text = repr(argument)
    return f"{time_s:12.4f}  {owner:10} {handler.__name__:16} {text[:400]}"


def picture(world: World) -> Iterator[str]:
    """The hardware beside every ledger, to analyse a failure."""
    now_s = world.timeline.now_s
    yield f"at {now_s:.4f}: hardware {world.checker.sum_mw} mW, budget {world.budget.at_mw(now_s)} mW"
    for planner in world.planners:
        if planner.state is not None:
            free = free_mw(planner.state, planner.config, planner.clock_s)
            yield f"{planner.name}: epoch {planner.epoch}, free {free} mW, frozen {planner.state.frozen}"
    for card in world.cards:
        agent = world.agents[card.node]
        line = agent.state.lines.get(card.gpu)
        text = f"{card.gpu} set {card.requested_mw} lawful {card.lawful_mw} ceiling {line.ceiling_mw if line else None}"
        text += f" (agent up={agent.up} id={agent.state.decision_id})"
        for planner in world.planners:
            page = planner.state.nodes.get(agent.node) if planner.state is not None else None
            if page is not None and card.gpu in page.cards.gpus:
                at = page.cards.gpus.index(card.gpu)
                sent = [(s.decision_id, s.caps_mw[at]) for s in page.sent]
                over = "  <-- above its charge" if card.requested_mw > page.cost_mw[at] else ""
                text += f" | {planner.name}: proven {page.hardware_mw[at]} sent {sent} acked {page.acked_id}"
                text += f" cost {page.cost_mw[at]}{over}"
        yield text
