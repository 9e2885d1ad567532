"""How many replicas may still start on GPUs that no report shows, where a budget covers workers only.

Owns which pods count as sure to stay. Must never count a pod that a decision may have let go: its GPU may be free, and
another replica may be on a GPU that no report shows yet. Reports, decisions and acknowledgements may all be late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from planner.core.placement import GpuInventory
from planner.core.power import site_ledger as ledger
from planner.core.power.site_state import PowerState
from planner.core.state import Flow, Starts
from planner.domain.config import Covers, DeploymentConfig, SiteConfig
from planner.domain.ids import GpuId, PoolId

Pods = Mapping[PoolId, frozenset[tuple[GpuId, str]]]


@dataclass(frozen=True, slots=True)
class WorkersNow:
    """A deployment's pods where the budget covers workers only, by pool."""

    staying: Mapping[PoolId, int]
    """GPUs whose pods are sure to stay."""
    starting: Mapping[PoolId, int]
    """GPUs on which published replicas may still start."""
    living: Pods
    """GPUs and names of the pods that live by the newest reports."""


def workers_now(inventory: GpuInventory, config: DeploymentConfig, flow: Flow) -> WorkersNow:
    """A deployment's pods by the newest reports and the decisions so far."""
    return WorkersNow(sure(inventory, config, flow), to_start(inventory, config, flow), pods_of(inventory, config))


def pods_of(inventory: GpuInventory, config: DeploymentConfig) -> Pods:
    """GPUs and names of the pods of each pool that live by the newest reports."""
    return {name: inventory.pods.get((config.deployment, name), frozenset()) for name in config.pools}


def sure(inventory: GpuInventory, config: DeploymentConfig, flow: Flow) -> dict[PoolId, int]:
    """The GPUs of each pool whose pods are sure to stay: those that started since the last decision, and of the others
    as many as no decision has let go. A report may be older than a decision: what it shows may be leaving.
    """
    found, starts = {}, flow.starts
    for name, living in pods_of(inventory, config).items():
        if flow.decision_id < 0:
            found[name] = len(living)
            continue
        old = living if starts.old is None else living & starts.old.get(name, frozenset())
        staying = min(len(old), starts.kept.get(name, 0)) + len(living) - len(old)
        found[name] = min(staying, flow.published.get(name, 0) * config.pools[name].gpus_per_replica)
    return found


def to_start(inventory: GpuInventory, config: DeploymentConfig, flow: Flow) -> dict[PoolId, int]:
    """On how many GPUs, by pool, replicas may still start: those that decisions may have running, less those that are
    sure to stay.
    """
    staying = sure(inventory, config, flow)
    return {
        name: max(
            0, _may_run(flow, name) * pool.gpus_per_replica - staying[name] - flow.starts.never_start.get(name, 0)
        )
        for name, pool in config.pools.items()
    }


def kept(flow: Flow, pool: PoolId, count: int, size: int, staying: int) -> int:
    """Of the ``staying`` GPUs of a pool, those whose pods are sure to stay after a decision of ``count`` replicas.

    Which pods it lets go is the orchestrator's choice: perhaps those in reports, and it keeps those in none.
    """
    leaving = max(0, flow.published.get(pool, 0) - count) * size
    return min(count * size, max(0, staying - leaving))


def starting_after(flow: Flow, pool: PoolId, count: int, size: int, staying: int, starting: int) -> int:
    """On how many GPUs replicas may still start after a decision of ``count`` replicas of ``size`` GPUs each.

    ``staying``, ``starting``: the same before it. A decision adds at most what it grows by, a scale-down nothing.
    """
    grows = max(0, count - flow.published.get(pool, 0)) * size
    unseen = max(count, _may_run(flow, pool)) * size - kept(flow, pool, count, size, staying)
    return min(unseen, starting + grows)


def _may_run(flow: Flow, pool: PoolId) -> int:
    return max(flow.published.get(pool, 0), flow.starts.at_most.get(pool, 0))


def unannounced(inventory: GpuInventory, config: DeploymentConfig, flow: Flow) -> int:
    """Number of GPUs whose pods no decision brought up: an HPA or a person did. 0 before the first decision."""
    if flow.decision_id < 0:
        return 0
    return sum(
        [
            max(0, len(pods) - _may_run(flow, name) * config.pools[name].gpus_per_replica)
            for name, pods in pods_of(inventory, config).items()
        ]
    )


def decided(flow: Flow, counts: Mapping[PoolId, int], sizes: Mapping[PoolId, int], now: WorkersNow) -> Starts:
    """What is known at the moment in which a further decision of ``counts`` replicas is published.

    ``sizes``: GPUs per replica, of the pools in ``counts`` that have GPUs.
    """
    at_most = {name: max(count, _may_run(flow, name)) for name, count in {**flow.published, **counts}.items()}
    stay = {name: kept(flow, name, counts[name], size, now.staying[name]) for name, size in sizes.items()}
    never = {
        name: at_most[name] * size
        - stay[name]
        - starting_after(flow, name, counts[name], size, now.staying[name], now.starting[name])
        for name, size in sizes.items()
    }
    found = Starts(at_most, stay, never_start={name: gpus for name, gpus in never.items() if gpus})
    before = flow.starts.old
    if before is None and flow.decision_id >= 0:
        return found
    # A late report may hide pods that an earlier one showed.
    earlier = before or {}
    old = {name: pods | earlier.get(name, frozenset()) for name, pods in now.living.items()}
    return replace(found, old=old)


def carried_out(flow: Flow, inventory: GpuInventory, config: DeploymentConfig, power: PowerState, now_s: float) -> Flow:
    """The flow after looking whether the last decision was carried out AND every node has reported since.

    Then every pod that lives by the reports stays, every one that leaves is seen to leave, and nothing more is started.
    An answer to a power decision that was sent after the acknowledgement was known proves that a report is later:
    clocks of two machines are never compared.
    """
    starts = flow.starts
    if flow.decision_id < 0:
        return flow
    if not flow.ready:
        return flow if starts.done_s is None else replace(flow, starts=replace(starts, done_s=None))
    if starts.done_s is None:
        return replace(flow, starts=replace(starts, done_s=now_s))
    if not _all_reported_since(power, starts.done_s):
        return flow
    stay = {name: flow.published.get(name, 0) * pool.gpus_per_replica for name, pool in config.pools.items()}
    settled = Starts(dict(flow.published), stay, pods_of(inventory, config), done_s=starts.done_s)
    return flow if settled == starts else replace(flow, starts=settled)


def _all_reported_since(power: PowerState, since_s: float) -> bool:
    return all(
        node.seen is not None
        and node.proven
        and node.acked_id >= node.next_id - 1
        and node.sent_s >= since_s
        and node.seen.boot == node.boot
        and (node.seen.clock_s or 0.0) >= (node.clock_s or 0.0)
        for node in power.nodes.values()
    )


def must_wait(power: PowerState, site: SiteConfig, now_s: float) -> bool:
    """Whether no replica may start yet, because nothing is known of the site's GPUs: agents exist, or may be about to
    report. Where none has reported by the time at which raises begin, counts are decided without watts.
    """
    return site.covers is Covers.WORKERS and (site.expected_gpus is not None or now_s < power.raises_from_s)


class StartGate:
    """Lets replicas start as long as a site's ledger can pay for them wherever they start."""

    def __init__(self, power: PowerState, site: SiteConfig, now_s: float) -> None:
        self._power, self._site, self._now_s = power, site, now_s
        self._gpus = power.pledged_gpus

    def admit(self, gpus: int) -> bool:
        """Whether replicas on ``gpus`` more GPUs may start; counted if so. Always True where all GPUs are covered."""
        if self._site.covers is Covers.ALL_GPUS:
            return True
        if not ledger.affordable(self._power, self._site, self._gpus + gpus, self._now_s):
            return False
        self._gpus += gpus
        return True
