"""Which GPUs a budget covers where it covers workers only, and what it reserves for replicas that are still to start.

Owns the rules by which a GPU enters and leaves the sum that the budget bounds. Must never let a GPU leave while one of
our pods may be on it: it stays until a report shows no such pod AND its parked limit was read back and has settled. The
charge of every other GPU stays known, because a replica may start on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest

from planner.core.power.node_ledger import NEVER_S, NOT_DECIDED, Column, NodeLedger, total_of
from planner.domain.ids import DeploymentId, GpuId
from planner.domain.observation import LEFT, GpuObservation, NodeObservation


def inherited(ledger: NodeLedger, outside: Iterable[GpuId]) -> NodeLedger:
    """An inherited ledger, of which the last decision placed the GPUs in ``outside`` outside the budget."""
    beyond = frozenset(outside)
    covered = tuple([gpu not in beyond for gpu in ledger.cards.gpus])
    return _covering(ledger, covered)._replace(held=covered)


def with_pods(
    ledger: NodeLedger, seen: NodeObservation, deployments: frozenset[DeploymentId], last: NodeObservation | None
) -> NodeLedger:
    """The ledger after a report's pods: every GPU that a pod of ``deployments`` holds, or one that may be theirs, is
    covered from now on.

    Only a report that its agent made after answering this leader can show that a pod is gone: any other may be an old
    one that came late. ``last``: the report that was taken in before.
    """
    rows = [seen.gpus.get(gpu) for gpu in ledger.cards.gpus]
    before = ledger.held or (False,) * len(rows)
    proves = seen is ledger.seen and ledger.proven and ledger.reported_since_answer
    held = tuple(
        [
            was
            if row is None
            else row.deployment in deployments
            or row.worker == LEFT
            or _unlisted(row, last)
            or (was and (not proves or _lost_labels(seen, row, last)))
            for row, was in zip(rows, before, strict=True)
        ]
    )
    known = ledger.covered or (False,) * len(rows)
    fresh = _covering(ledger, tuple([was or now for was, now in zip(known, held, strict=True)]))
    if held != ledger.held or fresh.covered != ledger.covered:
        fresh = fresh._replace(held=held, goal_mw=None)
    return _with_covered_sums(fresh, rows) if seen is ledger.seen else fresh


def _with_covered_sums(ledger: NodeLedger, rows: list[GpuObservation | None]) -> NodeLedger:
    """The ledger with limits and draws of covered GPUs only, by the report that it has taken in."""
    ours = [row for row, counts in zip(rows, ledger.covered or (), strict=True) if counts and row is not None]
    draws = [row.draw_mw for row in ours if row.draw_mw is not None]
    return ledger._replace(
        enforced_mw=sum([row.enforced_mw or 0 for row in ours]),
        draw_mw=sum(draws) if len(draws) == len(ours) else None,
    )


def _lost_labels(seen: NodeObservation, row: GpuObservation, last: NodeObservation | None) -> bool:
    """Whether the pod on a GPU that was held may be the one of ours that held it. Its labels are gone when it was
    deleted by force, and it still runs. A new leader cannot know its name; nor does a report of another process of
    the agent prove a name, because it may be an old one that came late. A pod that the API server lists after all, and
    without labels of ours, never was ours: its agent saw it before its watch did.
    """
    if row.worker is None or row.deployment is not None:
        return False
    past = None if last is None or last.boot != seen.boot else last.known(row.gpu)
    if past is None:
        return True
    was_unlisted = past.deployment is None and past.terminating
    return past.worker == row.worker and not (was_unlisted and not row.terminating)


def _unlisted(row: GpuObservation, last: NodeObservation | None) -> bool:
    """Whether a pod that appears may be one of ours that was deleted by force before any report showed its labels."""
    if row.worker is None or row.deployment is not None or not row.terminating:
        return False
    past = None if last is None else last.known(row.gpu)
    return past is None or past.worker != row.worker


def _covering(ledger: NodeLedger, covered: tuple[bool, ...]) -> NodeLedger:
    if covered == ledger.covered:
        return ledger
    return ledger._replace(covered=covered, total_mw=total_of(ledger.cost_mw, covered))


def in_whole(ledger: NodeLedger) -> NodeLedger:
    """The ledger with every GPU covered, because pods may be on it that no report shows: until the node has answered
    another decision and has reported after that.
    """
    if ledger.covered is None:
        return ledger
    return _covering(ledger, (True,) * len(ledger.covered))._replace(goal_mw=None, sent_s=NEVER_S)


def leaves(ledger: NodeLedger, index: int, step_mw: int) -> bool:
    """Whether a GPU that no pod of ours holds is parked, and its limit was read back and has settled.

    Where the hardware did not follow, it leaves with the limit that was read: its charge stays known. The newest
    decision must have been answered.
    """
    caps, goal = ledger.caps_mw or (), ledger.goal_mw or ()
    return caps[index] - goal[index] < step_mw and ledger.cost_mw[index] == ledger.charge_mw[index]


def without_left(ledger: NodeLedger, now_s: float, step_mw: int) -> NodeLedger:
    """The ledger without the GPUs that leave the budget now. Its goals must be known."""
    if ledger.covered is None or ledger.caps_mw is None or ledger.goal_mw is None or ledger.wanted is None:
        return ledger
    # An answer may come before the first report of a node that is back: only that report shows which pods it has.
    if not ledger.answered or not ledger.reported_since_answer or ledger.sent_s == NEVER_S:
        return ledger
    if now_s < ledger.held_until_s:
        return ledger
    rows = enumerate(zip(ledger.covered, ledger.held, ledger.wanted, strict=True))
    covered = tuple(
        [
            counts and (held or want is not None or not leaves(ledger, index, step_mw))
            for index, (counts, held, want) in rows
        ]
    )
    return ledger if covered == ledger.covered else _covering(ledger, covered)


def with_reserved(ledger: NodeLedger, free_mw: int) -> tuple[NodeLedger, int]:
    """The ledger with the wanted free GPUs that ``free_mw`` can pay for, and what is left of it.

    A reserved GPU is charged as it stands; only then may its cap be raised.
    """
    if ledger.covered is None or ledger.wanted is None:
        return ledger, free_mw
    covered = list(ledger.covered)
    for index, (want, busy, ok) in enumerate(zip(ledger.wanted, ledger.busy, ledger.healthy, strict=True)):
        if want is None or covered[index] or busy or not ok or ledger.cost_mw[index] > free_mw:
            continue
        covered[index] = True
        free_mw -= ledger.cost_mw[index]
    if tuple(covered) == ledger.covered:
        return ledger, free_mw
    return _covering(ledger, tuple(covered))._replace(goal_mw=None), free_mw


def pledge_mw(nodes: Iterable[NodeLedger], gpus: int, unknown_mw: Sequence[int]) -> int:
    """What must be charged in addition, so that pods may start on any ``gpus`` GPUs that no pod of ours is known to
    hold: the highest charges among all of those, less what the free ones among the covered GPUs are charged anyway.

    ``unknown_mw``: the limits of GPUs that no report has shown.
    """
    if gpus <= 0:
        return 0
    charged: list[int] = []
    others = list(unknown_mw)
    for ledger in nodes:
        rows = zip(landing_mw(ledger), ledger.covered or (), ledger.held, strict=True)
        for cost, counts, held in rows:
            if not held:
                (charged if counts else others).append(cost)
    return max(0, sum(nlargest(gpus, charged + others)) - sum(charged))


def landing_mw(ledger: NodeLedger) -> Column:
    """What a pod that starts on each GPU may draw there at first: what is charged, read back or not."""
    return ledger.cost_mw


def released(ledger: NodeLedger, caps: Column) -> Column:
    """``caps`` without the GPUs that pods of others hold: decisions leave those to others from now on."""
    if ledger.covered is None:
        return caps
    rows = zip(caps, ledger.covered, ledger.busy, strict=True)
    return tuple([NOT_DECIDED if busy and not counts else cap for cap, counts, busy in rows])


def release_cost(ledger: NodeLedger, caps: Column, fresh: Column) -> int:
    """By how much the charges of released GPUs rise: the agent may give them back their defaults."""
    rows = zip(caps, fresh, ledger.cost_mw, ledger.cards.default_mw, strict=True)
    return sum([max(0, default - cost) for before, after, cost, default in rows if before != after])


@dataclass(frozen=True, slots=True)
class Outside:
    """How many GPUs of a site its budget does not cover, and by which sum of their charges."""

    gpus: int
    charge_mw: int


def outside(nodes: Iterable[NodeLedger]) -> Outside:
    """The GPUs that the budget does not cover."""
    costs = [
        cost
        for ledger in nodes
        if ledger.covered is not None
        for cost, counts in zip(ledger.cost_mw, ledger.covered, strict=True)
        if not counts
    ]
    return Outside(len(costs), sum(costs))
