"""Carries out scaling decisions on the simulated cluster: starts and drains workers, and acknowledges.

The deployment's only connector, written against ``VirtualConnectorClient`` exactly as an outside orchestrator would
write its own. All its state is the cluster's: it may be stopped and started at any moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from bus_schemas import v1
from bus_schemas.client import VirtualConnectorClient
from bus_schemas.errors import BusAwayError, NotStoredError

log = logging.getLogger(__name__)

POLL_S = 0.05
PROGRESS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Workers:
    """One pool's workers by state."""

    ready: int
    starting: int
    draining: int

    def settled_at(self, target: int) -> bool:
        """Whether nothing is left to do: ``target`` workers serve, and none is starting or draining."""
        return self.ready == target and self.starting == 0 and self.draining == 0


class WorkerPool(Protocol):
    """What the connector needs from a cluster."""

    def pools(self) -> Mapping[str, Workers]:
        """Workers of each pool, by state."""
        ...

    def start(self, pool: str, gpus: Sequence[str] | None) -> bool:
        """One worker more: one that still drains serves again; else one starts, on these GPUs if they are free, else on
        any. False when no GPU is free."""
        ...

    def drain(self, pool: str) -> None:
        """Drain one worker: a starting one first, because it serves no requests yet."""
        ...


class Connector:
    """The loop: wait for a decision, carry it out, complete it."""

    def __init__(self, client: VirtualConnectorClient, cluster: WorkerPool) -> None:
        self._client = client
        self._cluster = cluster

    async def run(self) -> None:
        """Run until cancelled. Waits while the bus is away: the decision is stored there."""
        while True:
            try:
                await self._client.wait()
                decision = await self._client.get()
                if isinstance(decision, v1.ScalingDecision):
                    await self._carry_out(decision)
            except (BusAwayError, NotStoredError) as error:
                log.warning("the bus is away, the decision is fetched again when it is back: %s", error)
                await asyncio.sleep(PROGRESS_EVERY_S)

    async def _carry_out(self, decision: v1.ScalingDecision) -> None:
        unknown = [name for name in decision.pools if name not in self._cluster.pools()]
        if unknown:
            await self._client.fail(decision, f"no such pool here: {', '.join(unknown)}", retryable=False)
            return
        short = self._aim(decision)
        if short:
            await self._client.fail(decision, f"no free GPU for {', '.join(short)}", retryable=True)
            await asyncio.sleep(PROGRESS_EVERY_S)
            return
        if await self._settle(decision):
            await self._client.complete(decision)
        else:
            await self._client.supersede(decision)

    def _aim(self, decision: v1.ScalingDecision) -> list[str]:
        """Start and drain once. Returns the pools that found no GPU. Drains come first: they free GPUs."""
        targets = {name: target.replicas for name, target in decision.pools.items()}
        for name, target in targets.items():
            workers = self._cluster.pools()[name]
            for _ in range(workers.ready + workers.starting - target):
                self._cluster.drain(name)
        hints = {name: [hint.gpus for hint in decision.placements if hint.pool == name] for name in targets}
        short = []
        for name, target in targets.items():
            workers = self._cluster.pools()[name]
            for _ in range(target - workers.ready - workers.starting):
                gpus = hints[name].pop(0) if hints[name] else None
                if not self._cluster.start(name, gpus):
                    short.append(name)
                    break
        return short

    async def _settle(self, decision: v1.ScalingDecision) -> bool:
        """Wait until the new workers serve and the drained ones are gone, reporting each step once.

        False where a newer decision came meanwhile: it takes the place of this one.
        """
        targets = {name: target.replicas for name, target in decision.pools.items()}
        waited_s, reported = 0.0, -1
        while True:
            pools = self._cluster.pools()
            settled = sum(pools[name].settled_at(target) for name, target in targets.items())
            if settled == len(targets):
                return True
            if waited_s >= PROGRESS_EVERY_S:
                if await self._client.superseded(decision):
                    return False
                waited_s = 0.0
                if settled == reported:
                    continue
                await self._client.progress(decision, settled, len(targets))
                reported = settled
            await asyncio.sleep(POLL_S)
            waited_s += POLL_S
