"""One namespace in etcd, claimed by one connector, and watched: the frame of the virtual connector's both directions.

Only the holder of the claim acts on a namespace, whichever direction it serves: two directions at once would pass
decisions round in a circle.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from agent.connectors.bus_claims import SecondConnectorError
from agent.connectors.virtual import dynamo_keys as keys
from agent.connectors.virtual.etcd_gateway import EtcdAwayError, EtcdGateway, Value, holds, put, unchanged
from agent.core.scaling.claims import Holder, refusal
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together

log = logging.getLogger(__name__)
LEASE_S = 6
"""How long another connector waits for one that was killed. Renewed three times within it."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
CLAIM_AGAIN_S = 0.5


class ServedNamespace:
    """A namespace for one deployment. ``changed`` is set by whoever sees a change, here and by the owner."""

    def __init__(self, etcd: EtcdGateway, deployment: str, namespace: str, holder: Holder, changed: asyncio.Event):
        self._etcd = etcd
        self._deployment = deployment
        self._namespace = namespace
        self._holder = holder
        self._changed = changed
        self.own = keys.own_prefix(namespace)
        self.prefixes = keys.prefixes(namespace)
        self._claim = f"{self.own}connector"
        self._held = f"{deployment} by {holder.name} {holder.instance}"
        self.serving = False
        """Whether the namespace is claimed and etcd answers."""
        self.trouble = "not connected to etcd yet"

    def still_claimed(self) -> dict[str, Any]:
        """The condition that this connector's claim stands."""
        return holds(self._claim, self._held)

    async def snapshot(self) -> tuple[dict[str, Value], int]:
        """All keys of the namespace at one revision, our own too, and that revision. Raises EtcdAwayError."""
        return await self._etcd.snapshot([*self.prefixes, self.own])

    async def run(self, step: Callable[[], Awaitable[None]]) -> None:
        """Call ``step`` after every change, until cancelled, and begin again whenever etcd was away.

        Raises SecondConnectorError.
        """
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                await self._serve(step, backoff)
            except EtcdAwayError as error:
                if str(error) != self.trouble:
                    log.warning("decisions of %s wait: %s", self._deployment, error)
                self.serving, self.trouble = False, str(error)
                await asyncio.sleep(backoff.next_s())

    async def _serve(self, step: Callable[[], Awaitable[None]], backoff: Backoff) -> None:
        lease = await self._claimed()
        try:
            backoff.reset()
            _, revision = await self.snapshot()
            parts = {"lease": self._renew(lease), "carry out": self._carry_out(step)}
            for prefix in self.prefixes:
                parts[f"watch {prefix}"] = self._watch(prefix, revision + 1)
            self.serving, self.trouble = True, ""
            log.info("serving namespace %s for deployment %s", self._namespace, self._deployment)
            await run_together(parts)
        finally:
            self.serving = False
            try:
                await self._etcd.revoke(lease)
            except EtcdAwayError:
                pass  # It runs out by itself.

    async def _claimed(self) -> str:
        """The lease under which this connector alone serves the namespace.

        Waits as long as the claim of a connector that was killed may last. Raises SecondConnectorError, EtcdAwayError.
        """
        lease = await self._etcd.lease(LEASE_S)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 2 * LEASE_S
        claim = [put(self._claim, self._held, lease)]
        while True:
            # Our own claim of before etcd was away may still be there: it is taken over, not waited for.
            for condition in (unchanged(self._claim, None), self.still_claimed()):
                if await self._etcd.transact([condition], claim):
                    return lease
            found, _ = await self._etcd.snapshot([self.own])
            held = found.get(self._claim)
            if held is not None and loop.time() > until_s:
                await self._etcd.revoke(lease)
                other = Holder(held.text, f"namespace {self._namespace} in etcd")
                raise SecondConnectorError(str(refusal(self._deployment, self._holder, other)))
            await self._etcd.renew(lease)
            await asyncio.sleep(CLAIM_AGAIN_S)

    async def _renew(self, lease: str) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self._etcd.renew(lease)

    async def _watch(self, prefix: str, start_revision: int) -> None:
        async for _ in self._etcd.watch(prefix, start_revision):
            self._changed.set()

    async def _carry_out(self, step: Callable[[], Awaitable[None]]) -> None:
        self._changed.set()
        while True:
            await self._changed.wait()
            self._changed.clear()
            await step()
