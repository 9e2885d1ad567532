"""Carries scaling decisions out on the simulated cluster: starts and drains workers, and acknowledges.

A deployment's one actuator, written against ``VirtualConnectorClient`` exactly as an outside orchestrator would
write its own. Keeps no state but the cluster's: it may be stopped and started at any moment.
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
        """Whether nothing is left to do: ``target`` serve, and nobody is coming or going."""
        return self.ready == target and self.starting == 0 and self.draining == 0


class WorkerPool(Protocol):
    """What the connector needs of a cluster."""

    def pools(self) -> Mapping[str, Workers]:
        """Workers of each pool."""
        ...

    def start(self, pool: str, gpus: Sequence[str] | None) -> bool:
        """Start a worker, on these GPUs if they are free, else on any. False when no GPU is free."""
        ...

    def drain(self, pool: str) -> None:
        """Let one worker finish its requests and go: a starting one first, for it serves nobody."""
        ...


class Connector:
    """The loop: wait for a decision, bring it about, complete it."""

    def __init__(self, client: VirtualConnectorClient, cluster: WorkerPool) -> None:
        self._client = client
        self._cluster = cluster

    async def run(self) -> None:
        """Until cancelled. A bus that is away costs a pause: the decision waits, the cluster knows what was done."""
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
        await self._settle(decision)
        await self._client.complete(decision)

    def _aim(self, decision: v1.ScalingDecision) -> list[str]:
        """Start and drain once; the pools that found no GPU. Drains go first: they free GPUs for others."""
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

    async def _settle(self, decision: v1.ScalingDecision) -> None:
        """Wait until what was asked for serves and what was dropped is gone, reporting how far it is."""
        targets = {name: target.replicas for name, target in decision.pools.items()}
        waited_s = 0.0
        while True:
            pools = self._cluster.pools()
            settled = sum(pools[name].settled_at(target) for name, target in targets.items())
            if settled == len(targets):
                return
            if waited_s >= PROGRESS_EVERY_S:
                await self._client.progress(decision, settled, len(targets))
                waited_s = 0.0
            await asyncio.sleep(POLL_S)
            waited_s += POLL_S
