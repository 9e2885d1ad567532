"""Which power-limit annotations worker pods get, so that another agent than ours can be the actuator. Pure.

Owns the order (lowers before raises) and the wait between them: that agent acknowledges nothing, so a raise waits until
its loop has surely run. Writes to pods only. Must not fight a second writer unless it was set to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from agent.core.pod_limits import ANNOTATION, LARGEST_WATTS
from agent.core.scaling.kubernetes.workload_pods import WorkerPod


@dataclass(frozen=True, slots=True)
class PlannedLimit:
    """The limit of each GPU of a pool. ``watts`` None: power is not managed any more, and ours are taken back."""

    watts: int | None


class PlannedLimits:
    """What was planned in the last ``settle_s`` seconds, by pool. Times are on one monotonic clock."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._past: deque[tuple[float, Mapping[str, PlannedLimit]]] = deque()
        self._began_s = float("inf")

    def take(self, limits: Mapping[str, PlannedLimit], now_s: float) -> None:
        """A plan that was just received. A pool that it leaves out is not touched."""
        self._began_s = min(self._began_s, now_s)
        self._past.append((now_s, limits))

    def lowest(self, now_s: float) -> Mapping[str, PlannedLimit]:
        """By pool of the newest plan, the lowest limit of those in force within the last ``settle_s``.

        So a lower is due at once, and a raise only when everything was that high for so long.
        """
        while len(self._past) > 1 and self._past[1][0] <= now_s - self._settle_s:
            self._past.popleft()
        if not self._past:
            return {}
        return {pool: self._lowest(pool, newest) for pool, newest in self._past[-1][1].items()}

    def _lowest(self, pool: str, newest: PlannedLimit) -> PlannedLimit:
        found = [one.watts for _, plan in self._past if (one := plan.get(pool)) is not None and one.watts is not None]
        return newest if newest.watts is None or not found else PlannedLimit(min(found))

    def settled(self, now_s: float) -> bool:
        """Whether plans were received for long enough that a raise may be written."""
        return now_s - self._began_s >= self._settle_s


@dataclass(frozen=True, slots=True)
class PoolPods:
    """A pool's pods. ``hold``: why nothing may be raised there now (a rollout)."""

    pods: Sequence[WorkerPod]
    hold: str = ""


@dataclass(frozen=True, slots=True)
class AnnotateLimit:
    """Write one pod's annotation; ``watts`` None: remove it. ``uid``: a pod of the same name is another one.

    ``before``: the annotation's text so far.
    """

    pool: str
    pod: str
    uid: str
    watts: int | None
    before: str = ""


@dataclass(frozen=True, slots=True)
class LimitWrites:
    """What differs from the plan. ``foreign``: by pool, pods whose limit another writer changed, in words."""

    lowers: tuple[AnnotateLimit, ...]
    raises: tuple[AnnotateLimit, ...]
    foreign: Mapping[str, str]


def limit_writes(
    planned: Mapping[str, PlannedLimit],
    pools: Mapping[str, PoolPods],
    written: Mapping[str, int],
    *,
    overwrite: bool = False,
) -> LimitWrites:
    """Compare a plan with the pods.

    ``written``: by uid, the watts that this process wrote last and has seen there since. A pod without the annotation
    runs at its hardware's default: a first one lowers it. Where the value is no number, the other agent's own default
    is in force, which is not known here: any number counts as a raise. A pod that leaves is only lowered, and one
    without a GPU is left alone.
    """
    lowers: list[AnnotateLimit] = []
    raises: list[AnnotateLimit] = []
    foreign: dict[str, str] = {}
    for pool, limit in sorted(planned.items()):
        found = pools.get(pool, PoolPods(()))
        for pod in found.pods:
            if not pod.may_hold_gpus or pod.power_limit == _text(limit):
                continue
            if _was_changed(pod, written):
                foreign[pool] = f"{pool}: another writer set {ANNOTATION}={pod.power_limit or 'nothing'} on {pod.name}"
                if not overwrite:
                    continue
            if limit.watts is None and not pod.own_power_limit:
                continue
            write = AnnotateLimit(pool, pod.name, pod.uid, limit.watts, pod.power_limit)
            if _lowers(pod.power_limit, limit):
                lowers.append(write)
            elif not found.hold and not pod.terminating:
                raises.append(write)
    return LimitWrites(tuple(lowers), tuple(raises), foreign)


def lowers_hidden(
    planned: Mapping[str, PlannedLimit],
    pools: Mapping[str, PoolPods] | None,
    targets: Collection[str],
    *,
    unseen: Collection[str] = (),
) -> bool:
    """Whether lowers may be due that `limit_writes` cannot show: then nothing may be raised, here or elsewhere.

    ``pools`` None: the cluster is not known now. ``targets``: pools that exist there. ``unseen``: pods of which a write
    was not seen yet.
    """
    limited = [pool for pool, limit in planned.items() if limit.watts is not None]
    if pools is None or unseen:
        return bool(limited)
    return any(pool in targets and pool not in pools for pool in limited)


def _text(limit: PlannedLimit) -> str:
    return "" if limit.watts is None else str(limit.watts)


def _was_changed(pod: WorkerPod, written: Mapping[str, int]) -> bool:
    """Whether the annotation is another one than this process wrote."""
    last = written.get(pod.uid)
    return last is not None and pod.power_limit != str(last)


def _lowers(now: str, limit: PlannedLimit) -> bool:
    if limit.watts is None:
        return False
    return not now or (now.isascii() and now.isdigit() and limit.watts < int(now))


def whole_watts(watts: float) -> int | None:
    """A cap as the annotation can carry it, rounded down; None where it cannot."""
    return int(watts) if 1 <= watts <= LARGEST_WATTS else None


def still_there(written: Mapping[str, int], pods: Iterable[WorkerPod]) -> dict[str, int]:
    """``written`` without pods that are gone."""
    there = {pod.uid for pod in pods}
    return {uid: watts for uid, watts in written.items() if uid in there}
