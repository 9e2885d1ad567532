"""Passes decisions on to etcd, and turns ``scaled_decision_id`` into acknowledgements.

Owns the keys of one namespace: one transaction writes a decision for both generations of clients, without a lease, so
that it survives every process. etcd is watched, not polled. While etcd is away, decisions wait, and nothing is
acknowledged. Must never complete a decision by keys that another writer changed, and never reuse an id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from agent.connectors.bus_claims import SecondConnectorError
from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual import dynamo_keys as keys
from agent.connectors.virtual.etcd_gateway import EtcdAwayError, EtcdGateway, Value, delete, holds, put, unchanged
from agent.core.scaling.claims import Holder, refusal
from agent.core.scaling.external_ids import PassedOn, next_id, passed_on
from agent.core.scaling.scaling_types import (
    PoolCount,
    ReplicaDecision,
    ScalingPhase,
    ScalingProblem,
    ScalingProgress,
)
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.v1 import ScalingDecision

log = logging.getLogger(__name__)
LEASE_S = 6
"""How long another connector waits for one that was killed. Renewed three times within it."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 2.0
CLAIM_AGAIN_S = 0.5
TWO_ROLES = "Dynamo's VirtualConnector carries prefill and decode alone"
"""Why a decision's pools without GPUs are not passed on."""
Counts = tuple[int | None, int | None]


class VirtualBridge:
    """One namespace in etcd, for one deployment. Runs until cancelled; raises SecondConnectorError."""

    def __init__(self, etcd: EtcdGateway, channel: ScalingChannel, namespace: str, holder: Holder) -> None:
        self._etcd = etcd
        self._channel = channel
        self._namespace = namespace
        self._holder = holder
        self._own = keys.own_prefix(namespace)
        self._claim, self._mark = f"{self._own}connector", f"{self._own}passed_on"
        self._prefixes = keys.prefixes(namespace)
        self._held = f"{channel.deployment} by {holder.name} {holder.instance}"
        self.serving = False
        """Whether the namespace is claimed and etcd answers."""
        self.trouble = "not connected to etcd yet"

    async def run(self) -> None:
        """Serve, and begin again whenever etcd was away."""
        await self._channel.started.wait()
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                await self._serve(backoff)
            except EtcdAwayError as error:
                if str(error) != self.trouble:
                    log.warning("decisions of %s wait: %s", self._channel.deployment, error)
                self.serving, self.trouble = False, str(error)
                await asyncio.sleep(backoff.next_s())

    async def _serve(self, backoff: Backoff) -> None:
        lease = await self._claimed()
        try:
            backoff.reset()
            _, revision = await self._snapshot()
            parts = {"lease": self._renew(lease), "carry out": self._carry_out()}
            for prefix in self._prefixes:
                parts[f"watch {prefix}"] = self._watch(prefix, revision + 1)
            self.serving, self.trouble = True, ""
            log.info("serving namespace %s for deployment %s", self._namespace, self._channel.deployment)
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
            for condition in (unchanged(self._claim, None), holds(self._claim, self._held)):
                if await self._etcd.transact([condition], claim):
                    return lease
            found, _ = await self._etcd.snapshot([self._own])
            held = found.get(self._claim)
            if held is not None and loop.time() > until_s:
                await self._etcd.revoke(lease)
                other = Holder(held.text, f"namespace {self._namespace} in etcd")
                raise SecondConnectorError(str(refusal(self._channel.deployment, self._holder, other)))
            await self._etcd.renew(lease)
            await asyncio.sleep(CLAIM_AGAIN_S)

    async def _renew(self, lease: str) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            await self._etcd.renew(lease)

    async def _watch(self, prefix: str, start_revision: int) -> None:
        async for _ in self._etcd.watch(prefix, start_revision):
            self._channel.changed.set()

    async def _snapshot(self) -> tuple[dict[str, Value], int]:
        return await self._etcd.snapshot([*self._prefixes, self._own])

    async def _carry_out(self) -> None:
        changed = self._channel.changed
        changed.set()
        while True:
            await changed.wait()
            changed.clear()
            await self._step()

    async def _step(self) -> None:
        """Read etcd once; pass the pursued decision on where it is not there, or acknowledge what became of it."""
        found, _ = await self._snapshot()
        values = {key: value.text for key, value in found.items()}
        there = passed_on(values.get(self._mark))
        if there is not None:
            self._channel.external_id = max(self._channel.external_id, there.external_id)
        decision, message = self._channel.state.pursued, self._channel.message
        if decision is None or message is None or self._channel.state.completed:
            return
        if (message.incarnation, message.decision_id) != decision.key:
            return  # A newer one is being taken; `changed` is set when it is.
        wanted = counts(message)
        if there is None or there.key != decision.key:
            if await self._pass_on(decision, wanted, found):
                await self._channel.report(ScalingProgress(decision.key, False, ScalingPhase.STARTING))
            self._channel.changed.set()
            return
        await self._channel.report(self._progress(decision, wanted, there, values))

    async def _pass_on(self, decision: ReplicaDecision, wanted: Counts, found: Mapping[str, Value]) -> bool:
        """Write a decision in one transaction; False where anything that it depends on has changed meanwhile."""
        ids = tuple(
            one
            for prefix in self._prefixes
            for one in keys.generation(prefix, {key: value.text for key, value in found.items()}).ids
        )
        number = next_id(decision, ids, self._channel.external_id)
        conditions = [holds(self._claim, self._held)]
        operations = [put(self._mark, PassedOn(decision.key, number).text())]
        for prefix in self._prefixes:
            for name, count in zip((keys.PREFILL, keys.DECODE), wanted, strict=True):
                # A role without a count has no key: clients read -1, not set.
                operations.append(delete(prefix + name) if count is None else put(prefix + name, str(count)))
            operations.append(put(prefix + keys.DECISION, str(number)))
            conditions += [unchanged(prefix + one, found.get(prefix + one)) for one in (keys.DECISION, keys.SCALED)]
        try:
            written = await self._etcd.transact(conditions, operations)
        except EtcdAwayError:
            # The answer may be lost, and the number in use.
            self._channel.external_id = number
            raise
        if not written:
            return False
        self._channel.external_id = number
        log.info("decision %d of %s is passed on as %d", decision.decision_id, self._channel.deployment, number)
        return True

    def _progress(
        self, decision: ReplicaDecision, wanted: Counts, there: PassedOn, values: Mapping[str, str]
    ) -> ScalingProgress:
        problem = None
        for prefix in self._prefixes:
            seen = keys.generation(prefix, values)
            if (seen.decision_id, seen.counts) != (there.external_id, wanted):
                problem = ScalingProblem(
                    f"another planner writes below {prefix} in etcd (decision {seen.decision_id}, counts {seen.counts} "
                    f"where this one is {there.external_id}, {wanted}): stop it"
                )
            elif seen.scaled_id is not None and seen.scaled_id >= there.external_id:
                pools = {pool: PoolCount(count, count) for pool, count in decision.replicas.items()}
                return ScalingProgress(decision.key, complete=True, pools=pools)
        return ScalingProgress(decision.key, complete=False, phase=ScalingPhase.STARTING, problem=problem)


def counts(message: ScalingDecision) -> Counts:
    """Prefill and decode workers of a decision; None: not set."""
    prefill, decode = message.num_prefill_workers, message.num_decode_workers
    return None if prefill < 0 else prefill, None if decode < 0 else decode
