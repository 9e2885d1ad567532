"""What a node does in a tiny world: the real agent core decides, the cards obey, and answers go to the bus."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from agent.core import caps
from agent.core.caps import Acceptance, CapDecision, GpuTarget, Health, LimitReading, WriteResult
from bus_schemas import streams
from bus_schemas.subjects import Subjects
from deploy.fault_simulation.exhaustive.model_state import Gpu, Node, Report, Stored, gpu_id, node_id
from deploy.fault_simulation.exhaustive.scope import SearchScope
from planner.domain.ids import GpuId
from planner.domain.observation import GpuCapInForce, GpuObservation, NodeObservation, PowerAckSeen

ALL = 1_000_000
"""More writes than a node ever makes at once."""


def readings(scope: SearchScope, n: int, node: Node) -> dict[str, LimitReading]:
    """All cards of a node, as its driver reads them, by GPU."""
    least, most, default = scope.least_watts * 1000, scope.most_watts * 1000, scope.default_watts * 1000
    return {
        gpu_id(n, g): LimitReading(gpu_id(n, g), gpu.set_mw, gpu.set_mw, default, least, most, Health.OK, node.resets)
        for g, gpu in enumerate(node.gpus)
    }


def started(scope: SearchScope, n: int, node: Node, now_s: float) -> Node:
    """A new agent process: it reads and adopts what is set. Its memory is gone, the limits stay."""
    fresh = node._replace(process=node.process + 1)
    boot = f"{node_id(n)}.{fresh.machine}/{fresh.process}"
    agent = caps.initial(boot, now_s, grace_s=scope.config.lease_s)
    return fresh._replace(agent=caps.observed(agent, readings(scope, n, fresh), now_s))


def decision_of(stored: Stored) -> CapDecision:
    """A stored decision as the agent's core takes it."""
    order = stored.order
    return CapDecision(
        stored.epoch,
        order.decision_id,
        stored.incarnation,
        order.valid_for_s,
        tuple([GpuTarget(cap.gpu, cap.setpoint, cap.fallback_mw) for cap in order.caps]),
        order.heard_boot,
        order.heard_clock_s,
        order.only_lowers,
    )


def _written(scope: SearchScope, gpu: Gpu, mw: int, now_s: float) -> Gpu:
    value = min(max(mw, scope.least_watts * 1000), scope.most_watts * 1000)
    lawful = None if value > gpu.set_mw else gpu.lawful_mw
    if lawful is not None and value <= lawful:
        lawful = None
    if scope.draw_lag_s and value < gpu.counted_mw(now_s):
        return Gpu(value, lawful, gpu.counted_mw(now_s), now_s + scope.draw_lag_s)
    return gpu._replace(set_mw=value, lawful_mw=lawful)


def worked(scope: SearchScope, n: int, node: Node, now_s: float, writes: int = ALL) -> Node:
    """Write what differs, lowers first, then read back. After ``writes`` of them the process dies, unread."""
    agent = node.agent
    if agent is None:
        return node
    acts = caps.actions(agent, readings(scope, n, node), now_s)
    gpus, results = list(node.gpus), []
    for act in acts[:writes]:
        g = int(act.gpu.rpartition("-g")[2])
        gpus[g] = _written(scope, gpus[g], act.mw, now_s)
        results.append(WriteResult(act.gpu, act.mw))
    node = node._replace(gpus=tuple(gpus))
    if len(acts) > writes:
        return node
    return node._replace(agent=caps.observed(agent, readings(scope, n, node), now_s, results))


def answered(scope: SearchScope, n: int, node: Node, now_s: float, status: str = "") -> Node:
    """What is in force, to the bus; the oldest answer that may still arrive is forgotten."""
    agent = node.agent
    if agent is None or agent.decision_id < 0:
        return node
    report = caps.report(agent, readings(scope, n, node), now_s)
    gpus = tuple(
        [
            GpuCapInForce(GpuId(g.gpu), g.requested_mw, g.enforced_mw, g.health in (Health.OK, Health.UNKNOWN), g.reset)
            for g in report.gpus
        ]
    )
    answer = PowerAckSeen(
        node_id(n),
        report.epoch,
        report.decision_id,
        report.applied_id,
        status or report.status,
        gpus,
        boot=agent.boot,
        clock_s=now_s,
        incarnation=agent.incarnation,
    )
    if node.answers and node.answers[-1] == answer:
        return node
    return node._replace(answers=(*node.answers, answer)[-scope.answers :])


def received(scope: SearchScope, n: int, node: Node, index: int, now_s: float) -> Node:
    """A decision arrives and is carried out or refused, and answered."""
    if node.agent is None:
        return node
    agent, verdict = caps.receive(node.agent, decision_of(node.arriving[index]), now_s)
    node = node._replace(agent=agent)
    if verdict is Acceptance.ACCEPTED:
        return answered(scope, n, worked(scope, n, node, now_s), now_s)
    return answered(scope, n, node, now_s, "" if verdict is Acceptance.REPEATED else "rejected")


def cut_off(scope: SearchScope, n: int, node: Node, index: int, writes: int, now_s: float) -> Node:
    """A decision arrives, the process dies after ``writes`` writes, and another one starts."""
    if node.agent is None:
        return node
    agent, _ = caps.receive(node.agent, decision_of(node.arriving[index]), now_s)
    return started(scope, n, worked(scope, n, node._replace(agent=agent), now_s, writes), now_s)


def read_hardware(scope: SearchScope, n: int, node: Node, now_s: float) -> Node:
    """The agent's regular reconcile: drift and lapsed leases are repaired, and the limits in force are reported."""
    return answered(scope, n, worked(scope, n, node, now_s), now_s)


def reported(scope: SearchScope, n: int, node: Node, now_s: float) -> Node:
    """Fresh telemetry on the bus."""
    agent = node.agent
    if agent is None:
        return node
    least, most, default = scope.least_watts * 1000, scope.most_watts * 1000, scope.default_watts * 1000
    gpus = {
        gpu_id(n, g): GpuObservation(gpu_id(n, g), None, gpu.set_mw, gpu.set_mw, default, least, most)
        for g, gpu in enumerate(node.gpus)
    }
    report = Report(NodeObservation(node_id(n), gpus, 0.0, agent.boot, now_s), now_s)
    if node.reports and node.reports[-1] == report:
        return node
    return node._replace(reports=(*node.reports, report)[-scope.reports :])


def _disturbed(gpu: Gpu, mw: int) -> Gpu:
    before = gpu.set_mw if gpu.lawful_mw is None else min(gpu.set_mw, gpu.lawful_mw)
    return gpu._replace(set_mw=mw, lawful_mw=before if mw > before else None)


def driver_reset(scope: SearchScope, node: Node) -> Node:
    """Every limit is back at its default; the agent's process lives on."""
    return node._replace(
        gpus=tuple([_disturbed(gpu, scope.default_watts * 1000) for gpu in node.gpus]), resets=node.resets + 1
    )


def rebooted(scope: SearchScope, n: int, node: Node, now_s: float) -> Node:
    """The machine starts again: limits at their defaults, another clock, another process."""
    fresh = driver_reset(scope, node)._replace(machine=node.machine + 1)
    return started(scope, n, fresh, now_s)


def switched_off(node: Node) -> Node:
    """No power, no limit, no draw."""
    return node._replace(gpus=tuple([Gpu(0) for _ in node.gpus]), agent=None)


def bounded(node: Node, n: int, mw: int | None) -> Node:
    """An annotation bounds every GPU of a node, or no longer does."""
    if node.agent is None:
        return node
    bounds: dict[str, int] = {} if mw is None else {gpu_id(n, g): mw for g in range(len(node.gpus))}
    return node._replace(agent=caps.bounded(node.agent, bounds))


def aged(report: Report, now_s: float) -> NodeObservation:
    """A report as the leader hears it now."""
    return replace(report.seen, age_s=now_s - report.made_s)


@cache
def _max_age_s() -> dict[str, float]:
    return {spec.name: spec.max_age_s or float("inf") for spec in streams.stream_specs(Subjects())}


def max_age_s(stream: str) -> float:
    """How long the product's stream keeps a message."""
    return _max_age_s()[stream]


def kept(node: Node, now_s: float) -> Node:
    """A node's subjects without what has aged away."""
    decisions, acks = max_age_s(streams.DECISIONS), max_age_s(streams.ACKS)
    telemetry = max_age_s(streams.TELEMETRY)
    return node._replace(
        decisions=tuple([d for d in node.decisions if now_s - d.published_s <= decisions]),
        answers=tuple([a for a in node.answers if now_s - (a.clock_s or 0.0) <= acks]),
        reports=tuple([r for r in node.reports if now_s - r.made_s <= telemetry]),
    )
