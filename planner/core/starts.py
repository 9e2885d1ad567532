"""How many replicas may still start on GPUs that no report shows, where a budget covers workers only.

Owns which pods count as sure to stay. Must never count a pod that a decision may have let go: its GPU may be free, and
another replica may be on a GPU that no report shows yet. Reports, decisions and acknowledgements may all be late.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace

from planner.core.placement import GpuInventory, survey
from planner.core.power import site_ledger as ledger
from planner.core.power.site_state import PowerState, unreported_gpus
from planner.core.state import Flow, Starts
from planner.domain.config import Covers, DeploymentConfig, SiteConfig
from planner.domain.ids import GpuId, NodeId, PoolId

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
    unseen = _at_most(flow, pool, count) * size - kept(flow, pool, count, size, staying)
    return min(unseen, starting + grows)


def _at_most(flow: Flow, pool: PoolId, count: int) -> int:
    """How many replicas may hold GPUs after a decision of ``count``: all that may before it, and those that it adds.

    What an earlier decision let go may still drain where no report shows it, so that none of its room is used again
    before the decisions have settled (`outcome`).
    """
    return _may_run(flow, pool) + max(0, count - flow.published.get(pool, 0))


def _may_run(flow: Flow, pool: PoolId) -> int:
    return max(flow.published.get(pool, 0), flow.starts.at_most.get(pool, 0))


def unannounced(inventory: GpuInventory, config: DeploymentConfig, flow: Flow) -> int:
    """Number of GPUs whose pods no decision brought up: an HPA or a person did. 0 before the first decision, and while
    it is not known what decisions may have running.
    """
    if flow.decision_id < 0 or flow.starts.unstated:
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
    at_most = {name: _at_most(flow, name, count) for name, count in {**flow.published, **counts}.items()}
    stay = {name: kept(flow, name, counts[name], size, now.staying[name]) for name, size in sizes.items()}
    never = {
        name: at_most[name] * size
        - stay[name]
        - starting_after(flow, name, counts[name], size, now.staying[name], now.starting[name])
        for name, size in sizes.items()
    }
    found = Starts(
        {} if flow.starts.unstated else at_most,
        stay,
        never_start={name: gpus for name, gpus in never.items() if gpus},
        unstated=flow.starts.unstated,
    )
    before = flow.starts.old
    if before is None and flow.decision_id >= 0:
        return found
    # A late report may hide pods that an earlier one showed.
    earlier = before or {}
    old = {name: pods | earlier.get(name, frozenset()) for name, pods in now.living.items()}
    return replace(found, old=old)


@dataclass(frozen=True, slots=True)
class StartsOutcome:
    """A deployment's flow after looking for what became of its last decision, and the nodes of which that is not known.

    ``ask``: they must answer another power decision first. ``silent``: the flow counts as carried out without them, and
    what may be on them is the caller's to charge.
    """

    flow: Flow
    ask: frozenset[NodeId] = frozenset()
    silent: frozenset[NodeId] = frozenset()


def outcome(
    flow: Flow, inventory: GpuInventory, config: DeploymentConfig, power: PowerState, site: SiteConfig, now_s: float
) -> StartsOutcome:
    """Whether the last decision was carried out AND every node that answers has reported since: while GPUs of the site
    are unreported, AND reports show every pod that may run.

    Then every pod that lives by the reports stays, every one that leaves is seen to leave, and nothing more is started.
    An answer to a power decision that was sent after the acknowledgement was known proves that a report is later:
    clocks of two machines are never compared.
    """
    starts = flow.starts
    if flow.decision_id < 0:
        return StartsOutcome(flow)
    if not flow.ready:
        return StartsOutcome(flow if starts.done_s is None else replace(flow, starts=replace(starts, done_s=None)))
    if starts.done_s is None:
        return StartsOutcome(replace(flow, starts=replace(starts, done_s=now_s)))
    stay = {name: flow.published.get(name, 0) * pool.gpus_per_replica for name, pool in config.pools.items()}
    settled = Starts(dict(flow.published), stay, pods_of(inventory, config), done_s=starts.done_s)
    if settled == starts:
        return StartsOutcome(flow)
    if unreported_gpus(power, site) and _unseen(flow, config, power, ()):
        return StartsOutcome(flow)  # What was let go may still drain where no agent has ever reported.
    unproven = _unproven(power, starts.done_s)
    waiting = unproven - _gone(power, site, starts.done_s, now_s)
    if waiting:
        return StartsOutcome(flow, ask=frozenset([n for n in waiting if power.nodes[n].sent_s < starts.done_s]))
    silent = unproven if unproven and _unseen(flow, config, power, unproven) else frozenset()
    return StartsOutcome(replace(flow, starts=settled), silent=silent)


def _unproven(power: PowerState, since_s: float) -> frozenset[NodeId]:
    """The nodes of which no report is known to be later than ``since_s``."""
    return frozenset(
        [
            name
            for name, node in power.nodes.items()
            if not (node.answered and node.sent_s >= since_s and node.reported_since_answer)
        ]
    )


def _gone(power: PowerState, site: SiteConfig, since_s: float, now_s: float) -> frozenset[NodeId]:
    """The nodes that have not answered for a lease, also not since ``since_s``."""
    if now_s - since_s <= site.lease_s:
        return frozenset()
    return frozenset(
        [
            name
            for name, node in power.nodes.items()
            if now_s - node.reported_s > site.lease_s
            or (node.unanswered_s is not None and now_s - node.unanswered_s > site.lease_s)
        ]
    )


def _unseen(flow: Flow, config: DeploymentConfig, power: PowerState, nodes: Container[NodeId]) -> bool:
    """Whether pods of a deployment may be on ``nodes`` that no report shows: those that live elsewhere are fewer than
    decisions may have running.
    """
    if flow.starts.unstated:
        return True
    elsewhere = survey([node.seen for name, node in power.nodes.items() if node.seen is not None and name not in nodes])
    living = pods_of(elsewhere, config)
    return any(_may_run(flow, name) * pool.gpus_per_replica > len(living[name]) for name, pool in config.pools.items())


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
