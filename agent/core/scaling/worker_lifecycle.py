"""What to do with worker processes that a connector keeps itself: start, drain, end, try again.

Pure: time is an argument. Owns the life of each worker (starting, ready, draining) and the back-off of a pool whose
workers fail. Must never give a GPU to two workers: one that drains holds its GPUs until its process is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from agent.core.scaling.scaling_types import PoolSeen, ScalingProblem

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STABLE_S = 30.0
"""A pool whose workers have been ready for this long has recovered: its next failure is the first again."""


class WorkerStage(StrEnum):
    """Where a worker stands in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class PoolRules:
    """How one pool's workers live. ``drain_s``: how long a worker may take to finish its requests."""

    gpus_per_replica: int = 1
    startup_timeout_s: float = 600.0
    drain_s: float = 30.0


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """One worker at one instant. ``since_s``: when its stage began. ``how_it_ended``: for one that is not alive."""

    worker: str
    pool: str
    stage: WorkerStage
    since_s: float
    gpus: tuple[str, ...] = ()
    alive: bool = True
    killed: bool = False
    how_it_ended: str = ""

    @property
    def stays(self) -> bool:
        """Whether it counts among the replicas that the pool should have."""
        return self.alive and not self.killed and self.stage is not WorkerStage.DRAINING


@dataclass(frozen=True, slots=True)
class Failures:
    """How often a pool's workers failed in a row, when the next one may start, and why the last one failed."""

    count: int = 0
    retry_at_s: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StartWorker:
    """Start a worker of a pool on these GPUs."""

    pool: str
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DrainWorker:
    """Let a worker finish its requests and end. One that never was ready has none."""

    worker: str
    was_ready: bool


@dataclass(frozen=True, slots=True)
class KillWorker:
    """End a worker at once."""

    worker: str
    reason: str


@dataclass(frozen=True, slots=True)
class ForgetWorker:
    """A worker's process is gone: its GPUs and its port are free."""

    worker: str


WorkerAction = StartWorker | DrainWorker | KillWorker | ForgetWorker


@dataclass(frozen=True, slots=True)
class Steps:
    """What to do now, in this order, and what is remembered of each pool's failures. ``problems``: by pool."""

    actions: tuple[WorkerAction, ...]
    failures: Mapping[str, Failures]
    problems: Mapping[str, str] = field(default_factory=dict)


def next_steps(
    wanted: Mapping[str, int],
    workers: Sequence[WorkerSeen],
    rules: Mapping[str, PoolRules],
    failures: Mapping[str, Failures],
    gpus: Collection[str],
    now_s: float,
    placements: Mapping[str, Sequence[tuple[str, ...]]] | None = None,
) -> Steps:
    """What brings the workers nearer to the wanted counts.

    ``workers``: in the order in which they were started. ``gpus``: all that this connector may use, in order of
    preference. ``placements``: GPUs that were reserved for new workers, taken where they are free.
    """
    actions: list[WorkerAction] = []
    known = dict(failures)
    for one in workers:
        action, failure = _of_one(one, rules[one.pool], now_s)
        actions += [] if action is None else [action]
        if failure:
            known[one.pool] = _failed(known.get(one.pool, Failures()), failure, now_s)
    killed = {action.worker for action in actions if isinstance(action, KillWorker)}
    staying = [one for one in workers if one.stays and one.worker not in killed]
    for pool in wanted:
        of_pool = [one for one in staying if one.pool == pool]
        actions += _surplus(of_pool, wanted[pool])
        if of_pool and all(one.stage is WorkerStage.READY and now_s - one.since_s >= STABLE_S for one in of_pool):
            known.pop(pool, None)
    free = [gpu for gpu in gpus if not any(one.alive and gpu in one.gpus for one in workers)]
    problems = {}
    for pool, count in wanted.items():
        missing = count - sum(one.pool == pool for one in staying)
        starts, problem = _missing(
            pool, missing, rules[pool], known.get(pool, Failures()), free, now_s, placements or {}
        )
        actions += starts
        if problem:
            problems[pool] = problem
    return Steps(tuple(actions), known, problems)


def pool_seen(pool: str, wanted: int, workers: Sequence[WorkerSeen], problem: str | None) -> PoolSeen:
    """The pool as the acknowledgements see it. A worker's GPUs are idle when its process is gone."""
    ready = sum(one.pool == pool and one.stays and one.stage is WorkerStage.READY for one in workers)
    leaving = sum(one.pool == pool and one.alive and not one.stays for one in workers)
    return PoolSeen(
        wanted=wanted, ready=ready, leaving=leaving, problem=None if problem is None else ScalingProblem(problem)
    )


def _of_one(one: WorkerSeen, rules: PoolRules, now_s: float) -> tuple[WorkerAction | None, str]:
    """What one worker needs by itself, and how it failed where it did."""
    age_s = now_s - one.since_s
    if not one.alive:
        failed = not one.killed and one.stage is not WorkerStage.DRAINING
        return ForgetWorker(one.worker), f"{one.worker} ended: {one.how_it_ended}" if failed else ""
    if one.killed:
        return None, ""
    if one.stage is WorkerStage.STARTING and age_s > rules.startup_timeout_s:
        reason = f"{one.worker} was not ready after {rules.startup_timeout_s:g} s"
        return KillWorker(one.worker, reason), reason
    if one.stage is WorkerStage.DRAINING and age_s > rules.drain_s:
        return KillWorker(one.worker, f"{one.worker} had not finished its requests after {rules.drain_s:g} s"), ""
    return None, ""


def _failed(before: Failures, reason: str, now_s: float) -> Failures:
    pause_s = min(FIRST_PAUSE_S * 2.0 ** min(before.count, 30), LONGEST_PAUSE_S)
    return replace(before, count=before.count + 1, retry_at_s=now_s + pause_s, reason=reason)


def _surplus(staying: Sequence[WorkerSeen], count: int) -> list[DrainWorker]:
    """Which workers leave: those that serve nothing yet first, then the newest."""
    order = {WorkerStage.STARTING: 0, WorkerStage.READY: 1}
    newest_first = list(reversed(staying))
    newest_first.sort(key=lambda one: order[one.stage])
    leaving = newest_first[: max(0, len(staying) - count)]
    return [DrainWorker(one.worker, one.stage is WorkerStage.READY) for one in leaving]


def _missing(
    pool: str,
    missing: int,
    rules: PoolRules,
    failed: Failures,
    free: list[str],
    now_s: float,
    placements: Mapping[str, Sequence[tuple[str, ...]]],
) -> tuple[list[StartWorker], str]:
    """Starts for what a pool lacks, and why it goes on lacking some. Takes their GPUs from ``free``."""
    if missing <= 0:
        return [], ""
    if now_s < failed.retry_at_s:
        # No countdown: each new text would be an acknowledgement of its own.
        return [], f"{pool}: {failed.reason} (failure {failed.count} in a row; another one starts after a pause)"
    starts: list[StartWorker] = []
    hints = [hint for hint in placements.get(pool, ()) if len(hint) == rules.gpus_per_replica]
    while missing > len(starts):
        hint = next((hint for hint in hints if set(hint) <= set(free)), None)
        chosen = hint if hint is not None else tuple(free[: rules.gpus_per_replica])
        if len(chosen) < rules.gpus_per_replica:
            return starts, f"{pool}: too few free GPUs for another worker, which takes {rules.gpus_per_replica}"
        for gpu in chosen:
            free.remove(gpu)
        starts.append(StartWorker(pool, chosen))
    return starts, ""
