"""One deployment's scaling on the bus: decisions in, acknowledgements out, both through the pure core.

Owns the state of the core and the order of acknowledgements: a state is taken only when the acknowledgements that led
to it are stored, and a decision is acknowledged to the server after them. A crash in between repeats and loses nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

from agent.core.scaling.acknowledging import receive, report, restored
from agent.core.scaling.scaling_types import (
    Acknowledgement,
    PoolCount,
    ReplicaDecision,
    ScalingPhase,
    ScalingProgress,
    ScalingState,
    ScalingStatus,
)
from bus_schemas.errors import BusAwayError, NotStoredError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumer import CannotCarryOutError, Consumer, Delivery
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.streams import DECISIONS
from bus_schemas.subjects import scaling_consumer
from bus_schemas.v1 import AckPhase, AckStatus, PoolProgress, RestartProgress, ScalingAck, ScalingDecision

log = logging.getLogger(__name__)
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


class ScalingChannel:
    """The decisions of one deployment and their acknowledgements. ``actuator``: who acknowledges, for people.

    ``pools``: those that can be scaled here, None where any may be; without it, those of a decision that have GPUs.
    ``leaves_other_pools``: why pools without GPUs are never carried out here; the rest of a decision then is, and the
    acknowledgement says what was left. Empty: they are carried out.
    ``changed`` is set whenever another decision is pursued. Raises BadNameError for a deployment whose name no subject
    can carry.
    """

    def __init__(
        self,
        bus: Bus,
        deployment: str,
        actuator: str,
        pools: Callable[[], Collection[str] | None] | None = None,
        *,
        leaves_other_pools: str = "",
    ) -> None:
        self._bus = bus
        self.deployment = deployment
        self._actuator = actuator
        self._pools = pools
        self._leaves_other_pools = leaves_other_pools
        self._decisions = bus.subjects.decision_scaling(deployment)
        self._acks = bus.subjects.ack_scaling(deployment)
        self._life, self._numbers = uuid.uuid4().hex[:12], itertools.count()
        self._unsure: tuple[object, str] | None = None
        """What is being stored, and its id. It stays where whoever waited for the answer was cancelled: what was sent
        may be stored, and the same acknowledgement is made again."""
        self._lock = asyncio.Lock()
        self._trace: str | None = None
        self.state = ScalingState()
        self.message: ScalingDecision | None = None
        """The newest decision as it came."""
        self.external_id = -1
        """The highest id under which a bridge has passed a decision on, as far as the bus or this process knows."""
        self.restart: RestartProgress | None = None
        """The newest report of a restart that was commanded, as the bus or this process knows it."""
        self.resumed = False
        """Whether a connector acknowledged here before this process began: workers may have left unseen since."""
        self.changed = asyncio.Event()
        self.started = asyncio.Event()
        self.received: Counter[str] = Counter()

    @property
    def connected(self) -> bool:
        """Whether the bus is connected now."""
        return self._bus.connected

    async def run(self) -> None:
        """Take in what is stored, then receive decisions until cancelled. Survives a bus that is away."""
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while not self.started.is_set():
            try:
                await self._bus.ready()
                await self._start()
            except BusAwayError as error:
                log.info("the bus is away: %s", error)
                await asyncio.sleep(backoff.next_s())
        durable = scaling_consumer(self.deployment)
        consumer = Consumer(self._bus, DECISIONS, durable, self._decisions, self._deliver, result_subject=self._acks)
        await consumer.run()

    async def _start(self) -> None:
        ack, decision = await last(self._bus, self._acks), await last(self._bus, self._decisions)
        if ack is not None and isinstance(ack.message, ScalingAck):
            self.resumed = True
            self.state = restored(acknowledgement_of(ack.message))
            self.external_id = max(self.external_id, _or_none(ack.message.external_decision_id))
            self.restart = ack.message.restart
        if decision is not None and isinstance(decision.message, ScalingDecision):
            await self._take(decision.message, decision.traceparent)
        self.started.set()
        self.changed.set()

    async def _deliver(self, delivery: Delivery) -> None:
        message = delivery.message
        if not isinstance(message, ScalingDecision):
            raise CannotCarryOutError(f"not a scaling decision but {message.type}")
        await self._take(message, delivery.traceparent)

    async def _take(self, message: ScalingDecision, traceparent: str | None) -> None:
        decision = decision_of(message, other_pools=not self._leaves_other_pools)
        async with self._lock:
            state, what, acks = receive(self.state, decision, self._known_pools(message, decision))
            self.received[what.value] += 1
            if state.current is not None and state.current.key == decision.key:
                self.message, self._trace = message, traceparent
            await self._store(acks)
            self.state = state
        self.changed.set()

    def _known_pools(self, message: ScalingDecision, decision: ReplicaDecision) -> Collection[str] | None:
        if self._pools is not None:
            return self._pools()
        return tuple(message.pools) or tuple(decision.replicas)

    async def report(self, progress: ScalingProgress) -> None:
        """Acknowledge an observation where that is news. Returns when it is stored, however long the bus is away."""
        async with self._lock:
            state, acks = report(self.state, progress)
            await self._store(acks)
            self.state = state

    async def report_restart(self, restart: RestartProgress) -> None:
        """Repeat the newest acknowledgement with this report where that is news; with the next one where none is."""
        if restart == self.restart:
            return
        async with self._lock:
            self.restart = restart
            if self.state.reported is not None:
                await self._store([self.state.reported])

    async def _store(self, acks: Sequence[Acknowledgement]) -> None:
        for ack in acks:
            content = (ack, self.restart, self.external_id)
            if self._unsure is None or self._unsure[0] != content:
                life = f"{self._life}-{next(self._numbers)}"
                self._unsure = content, f"{self.deployment}-{ack.incarnation}-{ack.decision_id}-{life}"
            # The id stays the same on retries, so that a lost answer stores nothing twice.
            msg_id = self._unsure[1]
            backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
            while True:
                try:
                    await publish(self._bus, self._acks, self._message(ack), msg_id, self._trace)
                    break
                except (NotStoredError, BusAwayError) as error:
                    log.warning("an acknowledgement is not stored yet: %s", error)
                    await asyncio.sleep(backoff.next_s())
            self._unsure = None

    def _message(self, ack: Acknowledgement) -> ScalingAck:
        newest = self.message
        applied = None
        if newest is not None and ack.status is ScalingStatus.APPLIED:
            applied = newest if _key(newest) == ack_key(ack) else None
        return ScalingAck(
            time=datetime.now(UTC),
            deployment=self.deployment,
            decision_id=ack.decision_id,
            scaled_decision_id=ack.scaled_id,
            incarnation=ack.incarnation,
            status=AckStatus(ack.status.value),
            phase=None if ack.phase is None else AckPhase(ack.phase.value),
            reason=ack.reason or self._left(ack),
            retryable=ack.retryable,
            num_prefill_workers=applied.num_prefill_workers if applied else -1,
            num_decode_workers=applied.num_decode_workers if applied else -1,
            replicas={pool: count.ready for pool, count in ack.pools.items()},
            pools={pool: PoolProgress(ready=one.ready, wanted=one.wanted) for pool, one in ack.pools.items()},
            actuator=self._actuator,
            external_decision_id=self.external_id if self.external_id >= 0 else None,
            restart=self.restart,
        )

    def _left(self, ack: Acknowledgement) -> str:
        """What of the acknowledged decision is not carried out here, and why; empty where nothing is left."""
        newest = self.message
        if not self._leaves_other_pools or newest is None or _key(newest) != ack_key(ack) or not newest.other_pools:
            return ""
        counts = ", ".join(f"{pool}={count}" for pool, count in sorted(newest.other_pools.items()))
        return f"{counts} is left to others: {self._leaves_other_pools}"


def _key(message: ScalingDecision) -> tuple[str, int]:
    return message.incarnation, message.decision_id


def ack_key(ack: Acknowledgement) -> tuple[str, int]:
    """The key of the decision that is acknowledged."""
    return ack.incarnation, ack.decision_id


def decision_of(message: ScalingDecision, *, other_pools: bool = True) -> ReplicaDecision:
    """The core's form of a decision, with its pools without GPUs or without them.

    One without pools has those of the counts that it sets.
    """
    replicas = {name: target.replicas for name, target in message.pools.items()}
    if other_pools:
        replicas |= message.other_pools
    if not replicas:
        counts = {"prefill": message.num_prefill_workers, "decode": message.num_decode_workers}
        replicas = {name: count for name, count in counts.items() if count >= 0}
    places: dict[str, tuple[tuple[str, ...], ...]] = {}
    for hint in message.placements:
        places[hint.pool] = (*places.get(hint.pool, ()), hint.gpus)
    return ReplicaDecision(message.decision_id, message.incarnation, replicas, places)


def acknowledgement_of(message: ScalingAck) -> Acknowledgement:
    """The core's form of a stored acknowledgement."""
    return Acknowledgement(
        decision_id=message.decision_id,
        incarnation=message.incarnation,
        scaled_id=message.scaled_decision_id,
        status=ScalingStatus(message.status.value),
        phase=None if message.phase is None else ScalingPhase(message.phase.value),
        reason=message.reason,
        retryable=message.retryable,
        pools={pool: PoolCount(one.ready, one.wanted) for pool, one in message.pools.items()},
    )


def _or_none(number: int | None) -> int:
    return -1 if number is None else number
