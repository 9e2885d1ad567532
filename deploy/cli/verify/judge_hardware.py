"""Judges what is in force on the hardware: caps against grants, budget against caps and draw, and each GPU. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.runtime.preflight import Status
from bus_schemas import v1
from deploy.cli.verify.facts import BusFacts, Facts, Unknown
from deploy.cli.verify.judge_automation import doubled, silent_nodes
from deploy.cli.verify.verdicts import Check, CheckLine, Group, Verdict, listed, sentences
from deploy.views.budgets import SAME_WATTS
from deploy.views.freshness import leader
from deploy.views.site_view import NodeSummary

CAPS = Check(Group.HARDWARE, "caps in force")
LEAST = Check(Group.HARDWARE, "smallest caps")
BUDGET = Check(Group.HARDWARE, "budget")
DRAW = Check(Group.HARDWARE, "draw")
HEALTH = Check(Group.HARDWARE, "GPUs")
DRIVER = Check(Group.HARDWARE, "driver here")
CLIPPED_W = 5.0
"""A limit may be this far below its cap where another limiter of the card holds."""


def judge(facts: Facts) -> Iterator[CheckLine]:
    """The lines of the group."""
    bus = facts.bus
    unread = "the bus cannot be reached" if isinstance(bus, Unknown) else ""
    if not isinstance(bus, Unknown):
        unread = next((bus.unread[one] for one in ("telemetry.node", "decision.power") if one in bus.unread), "")
    if isinstance(bus, Unknown) or unread or not bus.view.nodes:
        for check in (CAPS, LEAST, BUDGET, DRAW, HEALTH):
            yield check.skipped(unread or "no agent has reported")
    else:
        yield _caps(facts, bus)
        least = _least(bus)
        yield least
        yield _budget(bus, short=least.verdict is Verdict.FAIL)
        yield _draw(bus)
        yield _health(bus)
    yield _driver(facts)


def _caps(facts: Facts, bus: BusFacts) -> CheckLine:
    """Caps in force equal to caps granted; nodes that are silent, or have two agents, have their own lines."""
    silent = silent_nodes(facts, bus)
    left_out = {*silent, *doubled(bus), *bus.removed}
    decided = {name: one for name, one in bus.view.nodes.items() if name not in left_out and one.decision is not None}
    if not decided:
        return CAPS.skipped(
            "no power decision is on the bus" if not left_out else f"left out: {listed(sorted(left_out))}"
        )
    # Without a leader agents lower their GPUs by themselves, as they should.
    led = leader(bus.view, bus.now) is not None
    above = [text for name, one in sorted(decided.items()) for text in _not_in_force(name, one, led=led)]
    if above:
        remedy = "see the agent's log there: another tool, a reset, or a missing right (`wattscale agent check`)"
        return CAPS.failed(sentences(above), remedy)
    watts = sum(one.enforced_watts for one in decided.values())
    left = f"; left out: {listed(sorted(left_out))}" if left_out else ""
    return CAPS.passed(f"{watts:,.0f} W on {len(decided)} nodes, as decided{left}")


def _not_in_force(name: str, node: NodeSummary, *, led: bool) -> Iterator[str]:
    decision, ack, telemetry = node.decision, node.ack, node.telemetry
    if decision is None or telemetry is None:
        return
    if ack is None or ack.incarnation not in {"", decision.incarnation}:
        yield f"{name}: decision #{decision.decision_id} has no answer"
        return
    if ack.applied_decision_id < decision.decision_id:
        why = f" ({ack.reason})" if ack.reason else ""
        yield f"{name}: decision #{decision.decision_id} is not applied, #{ack.applied_decision_id} is{why}"
        return
    seen = {gpu.gpu: gpu for gpu in telemetry.gpus}
    for cap in decision.caps:
        gpu = seen.get(cap.gpu)
        if gpu is None or gpu.enforced_watts is None or gpu.health is not v1.GpuHealth.OK:
            continue
        if gpu.enforced_watts > max(cap.cap_watts, gpu.min_watts) + SAME_WATTS:
            yield f"{name}: {cap.gpu} at {gpu.enforced_watts:g} W, {cap.cap_watts:g} W granted"
        elif led and gpu.enforced_watts < cap.cap_watts - CLIPPED_W and not decision.only_lowers:
            yield f"{name}: {cap.gpu} at only {gpu.enforced_watts:g} W, {cap.cap_watts:g} W granted"


def _sites(bus: BusFacts) -> Iterator[tuple[str, float, list[NodeSummary]]]:
    """Each site with a budget: its name, its budget in watts, and its nodes that were not declared gone."""
    for site in bus.view.sites():
        known = bus.view.budget_of(site)
        if known is not None:
            nodes = bus.view.nodes_of(site)
            yield site, known[0], [one for name, one in nodes.items() if name not in bus.removed]


def _above(bus: BusFacts, words: str, watts_of: Callable[[list[NodeSummary]], float]) -> tuple[list[str], list[str]]:
    """For each site a text with its watts beside its budget: those above it, and those within."""
    above: list[str] = []
    within: list[str] = []
    for site, budget_watts, nodes in _sites(bus):
        watts = watts_of(nodes)
        text = f"site {site}: {words} {watts:,.0f} W of {budget_watts:,.0f} W"
        (above if watts > budget_watts + SAME_WATTS else within).append(text)
    return above, within


def _judged(check: Check, found: tuple[list[str], list[str]], remedy: str) -> CheckLine:
    above, within = found
    if above:
        return check.failed(sentences(above), remedy)
    return check.passed(sentences(within)) if within else check.skipped("no budget is on the bus")


def _least(bus: BusFacts) -> CheckLine:
    found = _above(
        bus,
        "the smallest caps come to",
        lambda nodes: sum(one.least_watts for one in nodes),
    )
    remedy = "raise the budget (`wattscale budget set WATTS`, or `wattscale budget release`), or switch nodes off"
    return _judged(LEAST, found, remedy)


def _budget(bus: BusFacts, *, short: bool) -> CheckLine:
    if short:
        return BUDGET.skipped("no caps can meet it")
    if twice := doubled(bus):
        return BUDGET.skipped(f"two agents report in turns for {listed(twice)}")
    found = _above(bus, "caps of", lambda nodes: sum(one.charged_watts for one in nodes))
    remedy = "`wattscale status` shows which node is late; a silent one is charged until it answers or is removed"
    return _judged(BUDGET, found, remedy)


def _draw(bus: BusFacts) -> CheckLine:
    found = _above(bus, "drawn", lambda nodes: sum(one.drawn_watts for one in nodes))
    return _judged(DRAW, found, "the planner withholds the excess by itself; if it stays, raise margin_watts")


def _health(bus: BusFacts) -> CheckLine:
    gpus = [
        (f"{name}: {gpu.gpu}", gpu)
        for name, one in sorted(bus.view.nodes.items())
        if name not in bus.removed and one.telemetry is not None
        for gpu in one.telemetry.gpus
    ]
    lost = [f"{who} {gpu.health}" for who, gpu in gpus if gpu.health is v1.GpuHealth.QUARANTINED]
    if lost:
        return HEALTH.failed(sentences(lost), "drain the node and reset the GPU, or reboot it")
    odd = [f"{who} {gpu.health}" for who, gpu in gpus if gpu.health is not v1.GpuHealth.OK]
    if odd:
        return HEALTH.warned(sentences(odd), "each is charged at its default limit; see the agent's log")
    return HEALTH.passed(f"{len(gpus)} can be capped")


def _driver(facts: Facts) -> CheckLine:
    found = facts.hardware
    if isinstance(found, Unknown):
        return DRIVER.skipped(found.why)
    for status, make in ((Status.FAIL, DRIVER.failed), (Status.WARN, DRIVER.warned)):
        if bad := [one for one in found if one.status is status]:
            return make(sentences(f"{one.name}: {one.detail}" for one in bad), bad[0].remedy)
    return DRIVER.passed(sentences(f"{one.name}: {one.detail}" for one in found[:1]))
