"""Writes each worker pod's power limit as an annotation, for an agent that reads it there (Dynamo's Power Agent).

Decides nothing: the core compares and orders; this loop reads, writes and waits. There is no acknowledgement: that a
limit is in force is not known here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass

from agent.adapters.kubernetes.api import ApiError
from agent.connectors.kubernetes.cluster_client import ClusterClient
from agent.connectors.kubernetes.planned_power import PlannedPower
from agent.connectors.kubernetes.pool_watch import PoolWatch
from agent.connectors.kubernetes.scaling_events import ScalingEvents
from agent.core.scaling.kubernetes.power_limits import (
    AnnotateLimit,
    LimitWrites,
    PoolPods,
    limit_writes,
    lowers_hidden,
    still_there,
)

log = logging.getLogger(__name__)
CHECK_S = 5.0
UNSEEN_S = 30.0
"""A write that the watch has not shown after so long counts as lost."""


@dataclass(frozen=True, slots=True)
class SentLimit:
    """A limit that was written over ``before``, and when."""

    watts: int | None
    before: str
    sent_s: float


class LowersFirst:
    """The lowers of all deployments of this process: no raise while one is or may be due, and none until they have
    settled."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._due: set[str] = set()
        self._last_s = float("-inf")

    def mark(self, deployment: str, *, due: bool) -> None:
        """Whether lowers of a deployment are, or may be, still to be written."""
        (self._due.add if due else self._due.discard)(deployment)

    def written(self) -> None:
        """A lower was just written."""
        self._last_s = time.monotonic()

    def allow_raises(self) -> bool:
        """Whether every lower was written, and long enough ago."""
        return not self._due and time.monotonic() - self._last_s >= self._settle_s


class PowerAnnotator:
    """One deployment. Runs until cancelled. ``changed``: set by its watch and its plan."""

    def __init__(
        self,
        cluster: ClusterClient,
        watch: PoolWatch,
        planned: PlannedPower,
        events: ScalingEvents,
        lowers: LowersFirst,
        changed: asyncio.Event,
        *,
        overwrite: bool,
    ) -> None:
        self._cluster, self._watch, self._planned, self._events = cluster, watch, planned, events
        self._lowers, self._changed, self._overwrite = lowers, changed, overwrite
        self._written: dict[str, int] = {}
        self._sent: dict[str, SentLimit] = {}
        """By uid, writes that the watch has not shown yet."""

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            self._changed.clear()
            await self._step()
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _step(self) -> None:
        now_s = time.monotonic()
        planned = self._planned.limits.lowest(now_s)
        if not planned:
            return
        deployment = self._watch.watched.deployment
        if self._watch.unknown:
            self._lowers.mark(deployment, due=lowers_hidden(planned, None, ()))
            return
        pools = self._pools(now_s)
        targets = [pool for pool, one in self._watch.targets().items() if self._watch.item(one) is not None]
        hidden = lowers_hidden(planned, pools, targets, unseen=self._sent)
        found = limit_writes(planned, pools, self._written, overwrite=self._overwrite)
        self._lowers.mark(deployment, due=hidden or bool(found.lowers))
        failed = [await self._write(one, lowers=True) for one in found.lowers]
        self._lowers.mark(deployment, due=hidden or any(failed))
        if found.raises and self._lowers.allow_raises() and self._planned.limits.settled(now_s):
            failed += [await self._write(one, lowers=False) for one in found.raises]
        await self._warn(found, [text for text in failed if text])

    def _pools(self, now_s: float) -> Mapping[str, PoolPods]:
        """The pods whose annotation is known: not those that wait for the watch to show our own write."""
        pools = dict(self._watch.workers())
        everything = [pod for one in pools.values() for pod in one.pods]
        self._written = still_there(self._written, everything)
        for pod in everything:
            sent = self._sent.get(pod.uid)
            if sent is None or (pod.power_limit == sent.before and now_s - sent.sent_s <= UNSEEN_S):
                continue
            del self._sent[pod.uid]
            if pod.power_limit != sent.before and sent.watts is not None:
                # Ours, or what another writer made of it meanwhile.
                self._written[pod.uid] = sent.watts
        uids = {pod.uid for pod in everything}
        self._sent = {uid: one for uid, one in self._sent.items() if uid in uids}
        return {
            pool: PoolPods([pod for pod in one.pods if pod.uid not in self._sent], one.hold)
            for pool, one in pools.items()
        }

    async def _write(self, one: AnnotateLimit, *, lowers: bool) -> str:
        """Write one annotation; what went wrong, in words, or nothing."""
        target = self._watch.targets().get(one.pool)
        if target is None:
            return ""
        try:
            await self._cluster.annotate(target.namespace, one)
        except ApiError as error:
            return f"{one.pool}: the power limit of pod {one.pod} is not written: {error}"
        self._sent[one.uid] = SentLimit(one.watts, one.before, time.monotonic())
        self._written.pop(one.uid, None)
        if lowers:
            self._lowers.written()
        log.info("pod %s: power limit %s W", one.pod, one.watts)
        return ""

    async def _warn(self, found: LimitWrites, failed: list[str]) -> None:
        """An Event on the target of each pool where something is not as planned."""
        targets = self._watch.targets()
        for text in (*found.foreign.values(), *failed):
            target = targets.get(text.partition(":")[0])
            item = self._watch.item(target) if target is not None else None
            if target is not None and item is not None:
                await self._events.warn(target, item, text, reason="PowerLimitNotAsPlanned")
