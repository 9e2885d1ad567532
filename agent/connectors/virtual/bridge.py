"""Passes decisions on to etcd, and turns ``scaled_decision_id`` into acknowledgements.

Owns the keys of one namespace: one transaction writes a decision for both generations of clients, without a lease, so
that it survives every process. etcd is watched, not polled. While etcd is away, decisions wait, and nothing is
acknowledged. Must never complete a decision by keys that another writer changed, and never reuse an id.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.virtual import dynamo_keys as keys
from agent.connectors.virtual.etcd_gateway import EtcdAwayError, EtcdGateway, Value, delete, put, unchanged
from agent.connectors.virtual.served_namespace import ServedNamespace
from agent.core.scaling.claims import Holder
from agent.core.scaling.external_ids import PassedOn, next_id, passed_on
from agent.core.scaling.scaling_types import (
    PoolCount,
    ReplicaDecision,
    ScalingPhase,
    ScalingProblem,
    ScalingProgress,
)
from bus_schemas.v1 import ScalingDecision

log = logging.getLogger(__name__)
TWO_ROLES = "Dynamo's VirtualConnector carries prefill and decode alone"
"""Why a decision's pools without GPUs are not passed on."""
Counts = tuple[int | None, int | None]


class VirtualBridge:
    """One namespace in etcd, for one deployment. Runs until cancelled; raises SecondConnectorError."""

    def __init__(self, etcd: EtcdGateway, channel: ScalingChannel, namespace: str, holder: Holder) -> None:
        self._etcd = etcd
        self._channel = channel
        self._served = ServedNamespace(etcd, channel.deployment, namespace, holder, channel.changed)
        self._mark, self._prefixes = f"{self._served.own}passed_on", self._served.prefixes

    @property
    def serving(self) -> bool:
        """Whether the namespace is claimed and etcd answers."""
        return self._served.serving

    @property
    def trouble(self) -> str:
        """Why not; empty while it serves."""
        return self._served.trouble

    async def run(self) -> None:
        """Serve, and begin again whenever etcd was away."""
        await self._channel.started.wait()
        await self._served.run(self._step)

    async def _step(self) -> None:
        """Read etcd once; pass the pursued decision on where it is not there, or acknowledge what became of it."""
        found, _ = await self._served.snapshot()
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
        conditions = [self._served.still_claimed()]
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
