"""GPUs whose replicas have left: how long they keep their watts. Pure.

Owns when a GPU that no pod holds any more counts as free: once its connector has acknowledged that what left is
`drained`, and its draw is an idle one. Until then it counts as held by a pod that is leaving, so that it keeps its cap
and nothing new starts there. Connectors that report no phase cannot know: there, the pod's end is enough.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from planner.core import advisory
from planner.core.power.node_ledger import NodeLedger
from planner.core.power.site_state import PowerState
from planner.core.state import DeploymentState, Flow
from planner.domain.config import PlannerConfig, PoolConfig
from planner.domain.ids import DeploymentId, GpuId, NodeId
from planner.domain.observation import LEFT, GpuObservation, NodeObservation, ScalingAckSeen

NONE_DRAINED = -1


def drained_id(known: int | None, ack: ScalingAckSeen) -> int | None:
    """The newest decision after which nothing is left to drain; None for a connector that does not report that.

    ``known``: the same before this acknowledgement. A decision that is refused leaves nothing to wait for; those
    before it may.
    """
    if ack.phase == "applied" or (not ack.phase and ack.status == "applied"):
        return None
    if not ack.phase and known is None:
        return None
    before = NONE_DRAINED if known is None else known
    ended = ack.status == "rejected" or (ack.status == "failed" and not ack.retryable)
    done = ack.phase == "drained" or (ended and before >= ack.decision_id - 1)
    return max(before, ack.decision_id) if done else before


def observed(
    nodes: Mapping[NodeId, NodeObservation],
    power: PowerState,
    config: PlannerConfig,
    deployments: Mapping[DeploymentId, DeploymentState],
    now_s: float,
) -> Mapping[NodeId, NodeObservation]:
    """Reports in which GPUs whose replicas have left count as held until their watts may be credited.

    The node's last report says who held a GPU. After a change of leaders there is none: then a GPU without a pod waits
    for every deployment of the site that drains. No GPU waits longer than ``scaling_timeout_s``, whatever is decided in
    the meantime: a connector that is gone must not hold watts indefinitely.
    """
    nodes = {
        name: seen if (before := power.nodes.get(name)) is None else _with_vanished(_with_missing(seen, before), before)
        for name, seen in nodes.items()
    }
    draining = {
        name: deployments[name].flow
        for name in config.deployments
        if name in deployments and deployments[name].flow.drained_decision_id is not None
    }
    if not draining:
        return nodes
    found = DrainsNow(config, draining, advisory.members(config, power.site), power.since_s, now_s)
    return {
        name: seen if (before := power.nodes.get(name)) is None else _with_leavers(seen, before, found)
        for name, seen in nodes.items()
    }


class DrainsNow(NamedTuple):
    """The deployments whose connectors report phases, by what was decided for them. Times on the planner's clock."""

    config: PlannerConfig
    flows: Mapping[DeploymentId, Flow]
    members: tuple[DeploymentId, ...]
    """All deployments of the site."""
    led_since_s: float
    """When this leader took over."""
    now_s: float

    def behind(self, name: DeploymentId) -> bool:
        """Whether something that left may not be drained yet."""
        known = self.flows[name].drained_decision_id
        return (NONE_DRAINED if known is None else known) < self.flows[name].decision_id

    def within(self, name: DeploymentId, left_s: float) -> bool:
        """Whether a GPU that was left at ``left_s`` may still wait."""
        return self.now_s - left_s < self.config.deployments[name].scaling_timeout_s


def _with_missing(seen: NodeObservation, before: NodeLedger) -> NodeObservation:
    """The report with what earlier ones showed of GPUs that it lacks: a report without a GPU proves nothing of it."""
    last = before.seen
    if last is None or last is seen or (not last.missing and last.gpus.keys() <= seen.gpus.keys()):
        return seen
    missing = {name: gpu for name, gpu in {**last.missing, **last.gpus}.items() if name not in seen.gpus}
    return _unless_known(replace(seen, missing=missing), before) if missing else seen


def _with_vanished(seen: NodeObservation, before: NodeLedger) -> NodeObservation:
    """The report in which pods that still run are ours as before, although the API server does not list them any more.

    A pod that was deleted by force goes on until its kubelet has ended it. Its labels are gone, its name is not.
    """
    if before.seen is None or before.seen is seen:
        return seen
    ours = {}
    for name, gpu in seen.gpus.items():
        past = before.seen.known(name)
        if gpu.deployment is not None or gpu.worker is None or past is None:
            continue
        if past.deployment is not None and past.worker == gpu.worker:
            ours[name] = _held_as(gpu, past)
    return _with_gpus(seen, before, ours)


def _with_gpus(seen: NodeObservation, before: NodeLedger, gpus: Mapping[GpuId, GpuObservation]) -> NodeObservation:
    """The report with these GPUs instead."""
    return _unless_known(replace(seen, gpus={**seen.gpus, **gpus}), before) if gpus else seen


def _unless_known(seen: NodeObservation, before: NodeLedger) -> NodeObservation:
    """The report, or the last one where they are equal: the ledger recognises by identity what it has taken in."""
    return before.seen if before.seen is not None and before.seen == seen else seen


def _held_as(gpu: GpuObservation, past: GpuObservation) -> GpuObservation:
    """The GPU as one that the same pool still holds, with a pod that is leaving."""
    return replace(
        gpu,
        deployment=past.deployment,
        pool=past.pool,
        role=past.role,
        component=past.component,
        terminating=True,
    )


def _with_leavers(seen: NodeObservation, before: NodeLedger, draining: DrainsNow) -> NodeObservation:
    if before.seen is seen:
        return seen
    held = {}
    for name, gpu in seen.gpus.items():
        if gpu.deployment is None and gpu.worker is None and not gpu.terminating:
            past = None if before.seen is None else before.seen.known(name)
            inherited = before.seen is None and _covered(before, name)
            if (kept := _leaver(gpu, past, inherited, draining)) is not None:
                held[name] = kept
    return _with_gpus(seen, before, held)


def _covered(ledger: NodeLedger, gpu: GpuId) -> bool:
    """Whether the budget covers the GPU: one outside it was left by no replica whose watts are still to be credited."""
    return ledger.covered is None or any(
        counts for name, counts in zip(ledger.cards.gpus, ledger.covered, strict=True) if name == gpu
    )


def _leaver(
    gpu: GpuObservation, past: GpuObservation | None, inherited: bool, draining: DrainsNow
) -> GpuObservation | None:
    """A GPU without a pod as one that is still held, where it waits; else None."""
    left_s = past.left_s if past is not None else None
    if inherited or (past is not None and past.worker == LEFT and past.deployment is None):
        since_s = draining.led_since_s if left_s is None else left_s
        waiting = any(
            draining.behind(name) and draining.within(name, since_s)
            for name in draining.members
            if name in draining.flows
        )
        return replace(gpu, worker=LEFT, terminating=True, left_s=since_s) if waiting else None
    if past is None or past.deployment is None or past.deployment not in draining.flows:
        return None
    since_s = draining.now_s if left_s is None else left_s
    if not draining.within(past.deployment, since_s):
        return None
    pools = draining.config.deployments[past.deployment].pools
    if not draining.behind(past.deployment) and not _draws(
        gpu, pools.get(past.pool) if past.pool is not None else None
    ):
        return None
    return replace(_held_as(gpu, past), worker=LEFT, left_s=since_s)


def _draws(gpu: GpuObservation, pool: PoolConfig | None) -> bool:
    """Whether a GPU may draw more than an engine that stands still: something still runs on it."""
    if gpu.draw_mw is None:
        return True  # Unknown is not idle.
    return pool is not None and gpu.draw_mw > max(pool.curve.idle_mw, pool.curve.p_s_mw)


def left(power: PowerState, deployments: Mapping[DeploymentId, DeploymentState]) -> int:
    """Number of GPUs that keep their watts although no pod holds them."""
    if all(known.flow.drained_decision_id is None for known in deployments.values()):
        return 0
    reports = [ledger.seen for ledger in power.nodes.values() if ledger.seen is not None]
    return sum([1 for seen in reports for gpu in seen.gpus.values() if gpu.worker == LEFT and gpu.terminating])
