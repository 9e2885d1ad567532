"""Passes decisions on to a hash in Redis, and turns what an actuator reports there into acknowledgements.

Owns the planner's fields of one hash, which is read twice a second. While Redis is away, decisions wait, and nothing is
acknowledged. Must never complete a decision by a report of before it, and never fight another planner that writes the
hash.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from agent.connectors.bus_claims import SecondConnectorError
from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual import dynamo_hash as hashes
from agent.connectors.virtual.redis_store import HashSeen, RedisAwayError, RedisStore
from agent.core.scaling.claims import Holder, refusal
from agent.core.scaling.scaling_types import ScalingPhase, ScalingProgress
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.v1 import ScalingDecision

log = logging.getLogger(__name__)
CLAIM_TTL_S = 6
"""How long another connector waits for one that was killed. Renewed three times within it."""
CLAIM_AGAIN_S = 0.5
READ_EVERY_S = 0.5
"""One read of a few fields. Redis' own events are off by default, and a lost one is not sent again."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
LOST = "the claim on {} is gone: Redis lost it, or another connector has it"
_ROLES = {"prefill": "prefill", "decode": "decode", "aggregated": "decode"}
"""Of our roles, the one that counts them in the hash."""


class RedisBridge:
    """One hash in Redis, for one deployment. Runs until cancelled; raises SecondConnectorError."""

    def __init__(
        self, store: RedisStore, channel: ScalingChannel, holder: Holder, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._channel = channel
        self._holder = holder
        self._held = f"{channel.deployment} by {holder.name} {holder.instance}"
        self._clock = clock
        self.serving = False
        """Whether the hash is claimed and Redis answers."""
        self.trouble = "not connected to Redis yet"
        """Why not; empty while it serves."""

    async def run(self) -> None:
        """Serve, and begin again whenever Redis was away."""
        await self._channel.started.wait()
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                await self._serve(backoff)
            except RedisAwayError as error:
                if str(error) != self.trouble:
                    log.warning("decisions of %s wait: %s", self._channel.deployment, error)
                self.serving, self.trouble = False, str(error)
                await asyncio.sleep(backoff.next_s())

    async def _serve(self, backoff: Backoff) -> None:
        await self._take_claim()
        try:
            backoff.reset()
            self.serving, self.trouble = True, ""
            log.info("serving %s in Redis for deployment %s", self._store.target, self._channel.deployment)
            parts = {"claim": self._renew(), "carry out": self._carry_out(), "read": self._read_again()}
            await run_together(parts)
        finally:
            self.serving = False
            try:
                await self._store.release(self._held)
            except RedisAwayError:
                pass  # It runs out by itself.

    async def _take_claim(self) -> None:
        """Waits as long as the claim of a connector that was killed may last. Raises SecondConnectorError."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 2 * CLAIM_TTL_S
        while not await self._store.claim(self._held, CLAIM_TTL_S):
            seen = await self._store.read()
            if seen.holder and loop.time() > until_s:
                other = Holder(seen.holder, f"{self._store.target} in Redis")
                raise SecondConnectorError(str(refusal(self._channel.deployment, self._holder, other)))
            await asyncio.sleep(CLAIM_AGAIN_S)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(CLAIM_TTL_S / 3)
            if not await self._store.claim(self._held, CLAIM_TTL_S):
                raise RedisAwayError(LOST.format(self._store.target))

    async def _read_again(self) -> None:
        while True:
            self._channel.changed.set()
            await asyncio.sleep(READ_EVERY_S)

    async def _carry_out(self) -> None:
        while True:
            await self._channel.changed.wait()
            self._channel.changed.clear()
            await self._step(await self._store.read())

    async def _step(self, seen: HashSeen) -> None:
        """Pass the pursued decision on where it is not there, or acknowledge what became of it."""
        if seen.holder != self._held:
            raise RedisAwayError(LOST.format(self._store.target))
        decision, message = self._channel.state.pursued, self._channel.message
        if decision is None or message is None or (message.incarnation, message.decision_id) != decision.key:
            return  # None, or a newer one is being taken; `changed` is set when it is.
        wanted = counts(message)
        there = seen.passed_on
        if there is None or there.key != decision.key or hashes.is_absent(seen.fields):
            if await self._store.pass_on(decision.key, wanted, self._held, self._clock()):
                log.info(
                    "decision %d of %s is in %s", decision.decision_id, self._channel.deployment, self._store.target
                )
                if not self._channel.state.completed:
                    await self._channel.report(ScalingProgress(decision.key, False, ScalingPhase.STARTING))
            self._channel.changed.set()
            return
        pools = {
            name: (_ROLES[target.role], target.replicas)
            for name, target in message.pools.items()
            if target.role in _ROLES
        } or {role: (role, count) for role, count in decision.replicas.items()}
        was_completed = self._channel.state.completed
        await self._channel.report(
            hashes.progress(decision.key, pools, wanted, there, seen.fields, was_completed=was_completed)
        )


def counts(message: ScalingDecision) -> dict[str, int | None]:
    """Prefill and decode workers of a decision; None: not set."""
    given = {"prefill": message.num_prefill_workers, "decode": message.num_decode_workers}
    return {role: None if count < 0 else count for role, count in given.items()}
