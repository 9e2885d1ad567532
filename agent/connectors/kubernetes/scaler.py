"""Carries the decisions of one deployment out on Kubernetes: compare, write, acknowledge, at each change.

Decides nothing: the core compares and words; this loop reads, writes and waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import replace

from agent.adapters.kubernetes.api import ApiError
from agent.connectors.kubernetes.cluster_client import ClusterClient
from agent.connectors.kubernetes.pool_watch import PoolWatch
from agent.connectors.kubernetes.scaling_events import ScalingEvents
from agent.connectors.scaling_channel import ScalingChannel
from agent.core.scaling.counts import compare, in_force_by_us
from agent.core.scaling.scaling_types import (
    DecisionKey,
    PoolSeen,
    ReplicaDecision,
    ScalingPhase,
    ScalingProblem,
    ScalingProgress,
    SetReplicas,
    WriterKind,
)

log = logging.getLogger(__name__)
CHECK_S = 5.0
"""How long without any change until waiting times are compared again."""
CONFLICT = 409


class KubernetesScaler:
    """One deployment. Runs until cancelled."""

    def __init__(
        self,
        cluster: ClusterClient,
        channel: ScalingChannel,
        watch: PoolWatch,
        events: ScalingEvents,
        *,
        overwrite: bool,
    ) -> None:
        self._cluster, self._channel, self._watch, self._events = cluster, channel, watch, events
        self._overwrite = overwrite
        self.second_writers: Mapping[str, WriterKind] | None = None
        """By pool, who else set its count when it was compared last; None before that, and while it is not known."""
        self._written: dict[str, int] = {}
        self._raised_s: dict[str, float] = {}
        self._pursued: DecisionKey | None = None
        self._own: dict[str, tuple[str, int, str]] = {}
        """By pool: the version that we wrote over, the count that we wrote, and the version it then had."""

    @property
    def deployment(self) -> str:
        """The deployment that is scaled."""
        return self._channel.deployment

    async def run(self) -> None:
        """Carry out until cancelled."""
        await self._channel.started.wait()
        while True:
            self._channel.changed.clear()
            await self._step()
            try:
                async with asyncio.timeout(CHECK_S):
                    await self._channel.changed.wait()
            except TimeoutError:
                continue

    async def _step(self) -> None:
        decision = self._channel.state.pursued
        if decision is None:
            self.second_writers = None
            return
        if unknown := self._watch.unknown:
            self.second_writers = None
            await self._channel.report(waiting(decision, f"the cluster is not known now: {unknown}"))
            return
        if decision.key != self._pursued:
            self._pursued = decision.key
            self._watch.forget_lost()
        views = self._watch.seen(self._raised_s, resumed=self._channel.resumed)
        seen = {pool: self._with_own(pool, one) for pool, one in views.items()}
        for pool in decision.replicas:
            have = ", ".join(sorted(seen)) or "none"
            missing = ScalingProblem(f"{pool}: no component with a scaling adapter has this name; there are: {have}")
            seen.setdefault(pool, PoolSeen(None, 0, None, problem=missing))
        written = in_force_by_us(self._channel.state, self._written)
        result = compare(decision, seen, written, overwrite=self._overwrite)
        self.second_writers = result.foreign
        problems = [problem for action in result.actions if (problem := await self._write(action))]
        progress = result.progress
        if progress.complete:
            # Whoever wrote them: these counts are the decision's own, and what differs from them later is foreign.
            self._written |= decision.replicas
        if problems:
            words = [progress.problem.reason] if progress.problem else []
            # Also where capacity was given up: the decision ends only when the count that goes back is written.
            progress = replace(progress, problem=ScalingProblem("; ".join([*words, *problems])))
        await self._channel.report(progress)
        if progress.problem is not None:
            await self._warn(decision, progress.problem.reason)

    def _with_own(self, pool: str, seen: PoolSeen) -> PoolSeen:
        """As the object is after our own write, where the watch does not show it yet."""
        over, count, version = self._own.get(pool, ("", 0, ""))
        if seen.wanted is None or not over or seen.version != over:
            return seen
        return replace(seen, wanted=count, version=version, ready=min(seen.ready, max(count - 1, 0)))

    async def _write(self, action: SetReplicas) -> str:
        """Write one count; what went wrong, in words, or nothing."""
        target = self._watch.targets()[action.pool]
        try:
            count, version = await self._cluster.scale(target, action.replicas, action.version)
        except ApiError as error:
            if error.status == CONFLICT:
                # The watch brings the newer object, and with it who wrote.
                return f"{action.pool}: {target} was changed by another writer meanwhile"
            return f"{action.pool}: {target}: {error}"
        log.info("%s: %d -> %d replicas", target, action.was, count)
        self._written[action.pool] = count
        if count > action.was:
            self._raised_s[action.pool] = time.time()
        self._own[action.pool] = (action.version, count, version)
        return ""

    async def _warn(self, decision: ReplicaDecision, text: str) -> None:
        """An Event on each target of the decision that a problem names."""
        targets = self._watch.targets()
        for pool in decision.replicas:
            target = targets.get(pool)
            own = "; ".join(part for part in text.split("; ") if part.startswith(f"{pool}:"))
            item = self._watch.item(target) if target is not None else None
            if target is not None and item is not None and own:
                await self._events.warn(target, item, own)


def waiting(decision: ReplicaDecision, why: str) -> ScalingProgress:
    """Nothing can be done about a decision now."""
    return ScalingProgress(decision.key, False, ScalingPhase.STARTING, problem=ScalingProblem(why))
