"""Actuators for the check: an honest one over the connectors' own core, and one for each way to break the contract."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from datetime import UTC, datetime

from agent.connectors.scaling_channel import decision_of
from agent.core.scaling.acknowledging import receive, report
from agent.core.scaling.scaling_types import (
    Acknowledgement,
    PoolCount,
    ReplicaDecision,
    ScalingPhase,
    ScalingProgress,
    ScalingState,
    ScalingStatus,
)
from bus_schemas import codec, v1
from bus_schemas.errors import UndecodableError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import next_raw, sequence_of

POOLS = ("prefill", "decode")
WORK_S = 0.3


class Honest:
    """Scales nothing, and acknowledges as if: it takes a decision at once and completes it a little later."""

    name = "honest"

    def __init__(self, bus: Bus, deployment: str) -> None:
        self.bus, self.deployment = bus, deployment
        self.state = ScalingState()
        self.on_death: Callable[[], None] = lambda: None
        self._after, self._numbers = 0, itertools.count()
        self._work: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        subject = self.bus.subjects.decision_scaling(self.deployment)
        while True:
            for raw in await next_raw(self.bus, subject, self._after):
                self._after = sequence_of(raw)
                try:
                    message = codec.decode(raw.data)
                except UndecodableError:
                    await self.unreadable()
                    continue
                if isinstance(message, v1.ScalingDecision):
                    await self.received(decision_of(message))
            await asyncio.sleep(0.02)

    async def unreadable(self) -> None:
        """Leave it out."""

    async def received(self, decision: ReplicaDecision) -> None:
        self.state, _, acks = receive(self.state, decision, POOLS)
        await self.store(acks)
        if self._work is not None:
            self._work.cancel()
        if self.state.pursued is not None and not self.state.completed:
            self._work = asyncio.create_task(self.carry_out(self.state.pursued))

    async def carry_out(self, decision: ReplicaDecision) -> None:
        await asyncio.sleep(WORK_S)
        pools = {pool: PoolCount(count, count) for pool, count in decision.replicas.items()}
        for phase in (ScalingPhase.DRAINING, ScalingPhase.DRAINED):
            self.state, acks = report(self.state, ScalingProgress(decision.key, True, phase, pools))
            await self.store(acks)

    async def store(self, acks: tuple[Acknowledgement, ...]) -> None:
        for ack in acks:
            await self.answer(ack)

    async def answer(self, ack: Acknowledgement, **changes: object) -> None:
        message = v1.ScalingAck(
            time=datetime.now(UTC),
            deployment=self.deployment,
            decision_id=ack.decision_id,
            scaled_decision_id=ack.scaled_id,
            incarnation=ack.incarnation,
            status=v1.AckStatus(ack.status.value),
            phase=None if ack.phase is None else v1.AckPhase(ack.phase.value),
            reason=ack.reason,
            retryable=ack.retryable,
            pools={name: v1.PoolProgress(ready=one.ready, wanted=one.wanted) for name, one in ack.pools.items()},
            actuator="honest",
        ).model_copy(update=changes)
        subject = self.bus.subjects.ack_scaling(self.deployment)
        await publish(self.bus, subject, message, f"{self.name}-{id(self)}-{next(self._numbers)}")


class Silent(Honest):
    async def received(self, decision: ReplicaDecision) -> None:
        self.on_death()


class CompletesTwice(Honest):
    async def answer(self, ack: Acknowledgement, **changes: object) -> None:
        for _ in range(2 if ack.status is ScalingStatus.APPLIED else 1):
            await super().answer(ack, **changes)


class GoesBack(Honest):
    async def answer(self, ack: Acknowledgement, **changes: object) -> None:
        back = ack.status is ScalingStatus.ACCEPTED and ack.scaled_id > 0
        await super().answer(ack, **({"scaled_decision_id": ack.scaled_id - 1} if back else changes))


class CompletesAnother(Honest):
    async def answer(self, ack: Acknowledgement, **changes: object) -> None:
        if ack.status is ScalingStatus.SUPERSEDED:
            changes["scaled_decision_id"] = ack.decision_id + 1
        await super().answer(ack, **changes)


class CompletesLate(Honest):
    async def received(self, decision: ReplicaDecision) -> None:
        before = self.state.pursued
        unfinished = before is not None and not self.state.completed
        await super().received(decision)
        if unfinished and before is not None:
            late = Acknowledgement(before.decision_id, before.incarnation, before.decision_id, ScalingStatus.APPLIED)
            await self.answer(late)


class DoesTheImpossible(Honest):
    async def answer(self, ack: Acknowledgement, **changes: object) -> None:
        if ack.status is ScalingStatus.REJECTED:
            changes = {"status": v1.AckStatus.APPLIED, "scaled_decision_id": ack.decision_id}
        await super().answer(ack, **changes)


class TakesTheOutdated(Honest):
    async def received(self, decision: ReplicaDecision) -> None:
        current = self.state.current
        same = current is not None and current.incarnation == decision.incarnation
        if current is None or not same or decision.decision_id >= current.decision_id:
            await super().received(decision)
            return
        reached = self.state.scaled_id
        await self.answer(Acknowledgement(decision.decision_id, decision.incarnation, reached, ScalingStatus.APPLIED))


class GivesNoReason(Honest):
    async def answer(self, ack: Acknowledgement, **changes: object) -> None:
        await super().answer(ack, **changes, reason="")


class PhasesBackwards(Honest):
    async def answer(self, ack: Acknowledgement, **changes: object) -> None:
        other = {ScalingPhase.DRAINING: v1.AckPhase.DRAINED, ScalingPhase.DRAINED: v1.AckPhase.DRAINING}
        await super().answer(ack, **changes, **({"phase": other[ack.phase]} if ack.phase in other else {}))


class CountsWrong(Honest):
    async def answer(self, ack: Acknowledgement, **changes: object) -> None:
        pools = {name: v1.PoolProgress(ready=0, wanted=one.wanted) for name, one in ack.pools.items()}
        await super().answer(ack, **changes, pools=pools)


class NamesAnother(Honest):
    async def answer(self, ack: Acknowledgement, **changes: object) -> None:
        await super().answer(ack, **changes)
        await super().answer(ack, incarnation="of-somebody-else")


class TwoAtOnce(Honest):
    async def answer(self, ack: Acknowledgement, **changes: object) -> None:
        await super().answer(ack, **changes, actuator=f"for {ack.status}")


class DiesOfBytes(Honest):
    async def unreadable(self) -> None:
        self.on_death()
        await asyncio.Event().wait()


class KnowsOneIncarnation(Honest):
    async def received(self, decision: ReplicaDecision) -> None:
        if self.state.incarnation in ("", decision.incarnation):
            await super().received(decision)
        else:
            self.on_death()
