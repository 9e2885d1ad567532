"""Turns the decisions that a Dynamo planner writes to etcd into pins on our bus, and completes them there.

A thin shell around `dynamo_pins`: reads etcd and the bus, carries one action out, and looks again. Each action is
conditional on what was read, where it is stored: a pin on the last command, a completion on the decision. Must never
write a decision.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from agent.connectors.scaling_channel import decision_of
from agent.connectors.virtual import dynamo_keys as keys
from agent.connectors.virtual.etcd_gateway import EtcdGateway, Value, delete, put, unchanged
from agent.connectors.virtual.served_namespace import ServedNamespace
from agent.core.scaling.claims import Holder
from agent.core.scaling.dynamo_pins import (
    BusSeen,
    CommandSeen,
    CommandsSeen,
    CompleteForeign,
    ForeignDecision,
    ForgetCompletion,
    OurDecision,
    OurPlan,
    PinAction,
    PinId,
    PlannedPool,
    PublishPin,
    next_step,
)
from bus_schemas import codec, v1
from bus_schemas.errors import BusAwayError, NotStoredError
from bus_schemas.jetstream.api import NOT_THE_LAST, answer, ask, error_of
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import StoredMessage, last, next_raw, sequence_of, stored
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together

log = logging.getLogger(__name__)
LOOK_S = 5.0
"""The bus is read again after this time even without a sign of news: a copy of a message may be lost."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
"""Before another look after an action that had no effect."""


class PinBridge:
    """One namespace in etcd, for one deployment. Runs until cancelled; raises SecondConnectorError."""

    def __init__(self, etcd: EtcdGateway, bus: Bus, deployment: str, namespace: str, holder: Holder) -> None:
        self._etcd = etcd
        self._bus = bus
        self._deployment = deployment
        self._namespace = namespace
        self._changed = asyncio.Event()
        self._served = ServedNamespace(etcd, deployment, namespace, holder, self._changed)
        self._store_key, self._open_key = f"{self._served.own}store", f"{self._served.own}open"
        self._control = bus.subjects.control_deployment(deployment)
        self._plans = bus.subjects.telemetry_plan(deployment)
        self._decisions, self._acks = bus.subjects.decision_scaling(deployment), bus.subjects.ack_scaling(deployment)
        self._commands = CommandsSeen()
        self._backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._bus_trouble = ""
        self._prefix = self._served.prefixes[0]
        """Where the last decision was."""
        self.decision_id, self.scaled_id = -1, -1
        """Of the Dynamo planner, as etcd holds them now; -1: none."""
        self.open_because = ""
        """Why its decision is not completed; empty where none is open."""

    @property
    def serving(self) -> bool:
        """Whether the namespace is claimed, and etcd and the bus answer."""
        return self._served.serving and not self._bus_trouble

    @property
    def trouble(self) -> str:
        """Why it does not serve; empty while it does."""
        return self._served.trouble or self._bus_trouble

    @property
    def connected(self) -> bool:
        """Whether the bus is connected now."""
        return self._bus.connected

    async def run(self) -> None:
        """Serve until cancelled."""
        self._bus.on_reconnect.add(self._read_again)
        try:
            await run_together({"etcd": self._served.run(self._step), "bus": self._listen()})
        finally:
            self._bus.on_reconnect.discard(self._read_again)

    def _read_again(self) -> None:
        """The streams may be others than before: what was read of them does not count."""
        self._commands = CommandsSeen()
        self._changed.set()

    async def _listen(self) -> None:
        async def news(_: Msg) -> None:
            self._changed.set()

        for subject in (self._control, self._plans, self._acks):
            try:
                await self._bus.nc.subscribe(self._bus.subjects.stored(subject), cb=news)
            except (NatsError, OSError) as error:
                log.info("%s is read every %g s: %s", subject, LOOK_S, error)
        while True:
            await asyncio.sleep(LOOK_S)
            self._changed.set()

    async def _step(self) -> None:
        """Look once, and carry out what is next."""
        found, _ = await self._served.snapshot()
        if self._store_key not in found:
            await self._etcd.transact(
                [self._served.still_claimed(), unchanged(self._store_key, None)],
                [put(self._store_key, uuid.uuid4().hex[:12])],
            )
            self._changed.set()
            return
        prefix = self._prefix = newest_prefix(self._served.prefixes, found) or self._prefix
        foreign, scaled_id = self._foreign(prefix, found)
        self.decision_id = -1 if foreign is None else foreign.key.decision_id
        self.scaled_id = -1 if scaled_id is None else scaled_id
        try:
            step = next_step(foreign, await self._bus_seen(), scaled_id)
            await self._note(step.open_because, found)
            done = step.action is not None and await self._do(step.action, prefix, found)
            self._bus_trouble = ""
            if done:
                self._backoff.reset()
                self._changed.set()
            elif step.action is not None:
                # What was read may be wrong as well as old: a last command can also be deleted.
                self._commands = CommandsSeen()
                await asyncio.sleep(self._backoff.next_s())
                self._changed.set()
        except (BusAwayError, NotStoredError) as error:
            if str(error) != self._bus_trouble:
                log.warning("decisions of namespace %s wait: %s", self._namespace, error)
            self._bus_trouble = str(error)

    def _foreign(self, prefix: str, found: Mapping[str, Value]) -> tuple[ForeignDecision | None, int | None]:
        """The decision below ``prefix`` and the completed id, None where there is none."""
        values = {key: value.text for key, value in found.items()}
        seen = keys.generation(prefix, values)
        if seen.decision_id is None or seen.decision_id < 0:
            return None, seen.scaled_id
        revision = found[prefix + keys.DECISION].revision
        key = PinId(self._namespace, values[self._store_key], revision, seen.decision_id)
        return ForeignDecision(key, *seen.counts, seen.scaled_id), seen.scaled_id

    async def _bus_seen(self) -> BusSeen:
        await self._bus.ready()
        known = self._commands
        more, sequence = await self._commands_after(known.sequence)
        if self._commands is known:  # else the connection was lost meanwhile
            self._commands = known.after(more, self._namespace, sequence)
        # The plan before the decision: a decision that the plan published is then seen, too.
        plan = await last(self._bus, self._plans)
        decision, ack = await last(self._bus, self._decisions), await last(self._bus, self._acks)
        ours = scaled = None
        if decision is not None and isinstance(decision.message, v1.ScalingDecision):
            made = decision_of(decision.message)
            ours = OurDecision(made.key, made.replicas)
        if ack is not None and isinstance(ack.message, v1.ScalingAck):
            scaled = ack.message.incarnation, ack.message.scaled_decision_id
        return BusSeen(self._commands, None if plan is None else _plan(plan), ours, scaled)

    async def _commands_after(self, sequence: int) -> tuple[list[CommandSeen], int]:
        """The readable commands that came after ``sequence``, and the sequence of the last one, readable or not."""
        found: list[CommandSeen] = []
        while raw := await next_raw(self._bus, self._control, sequence):
            messages = [one for one in map(stored, raw) if one is not None]
            found += [one for one in map(_command, messages) if one is not None]
            sequence = sequence_of(raw[-1])
        return found, sequence

    async def _do(self, action: PinAction, prefix: str, found: Mapping[str, Value]) -> bool:
        """Carry out one action; False, without effect, where something that it depends on has changed meanwhile."""
        decision, scaled = prefix + keys.DECISION, prefix + keys.SCALED
        same = [self._served.still_claimed(), unchanged(decision, found.get(decision))]
        match action:
            case PublishPin():
                if done := await self._publish(action):
                    log.info(
                        "decision %d of %s is pinned: %s", action.key.decision_id, self._namespace, action.replicas
                    )
            case ForgetCompletion():
                done = await self._etcd.transact([*same, unchanged(scaled, found.get(scaled))], [delete(scaled)])
            case CompleteForeign():
                # Without a lease, so that the completion survives this process.
                if done := await self._etcd.transact(same, [put(scaled, str(action.key.decision_id))]):
                    log.info("decision %d of %s is completed", action.key.decision_id, self._namespace)
        return done

    async def _publish(self, pin: PublishPin) -> bool:
        """Whether the pin is stored; False where another command came first. Raises BusAwayError, NotStoredError."""
        message = v1.DeploymentControl(
            time=datetime.now(UTC),
            deployment=self._deployment,
            action="pin",
            replicas=dict(pin.replicas),
            reason=f"decision {pin.key.decision_id} of the Dynamo planner of namespace {self._namespace}",
            issued_by=f"dynamo planner {self._namespace}",
            command_id=pin.key.text(),
        )
        headers = codec.headers(message, pin.key.text(), self._bus.settings.name)
        headers["Nats-Expected-Last-Subject-Sequence"] = str(pin.after_sequence)
        problem = error_of(answer(await ask(self._bus, self._control, codec.encode(message), headers)))
        if problem is None or problem.code in NOT_THE_LAST:
            return problem is None
        raise NotStoredError(f"{self._control}: {problem.text}", problem.code)

    async def _note(self, why: str, found: Mapping[str, Value]) -> None:
        """Let the log and whoever reads etcd know why a decision is open."""
        if why and why != self.open_because:
            log.info("decision %d of %s is open: %s", self.decision_id, self._namespace, why)
        self.open_because = why
        text = f"decision {self.decision_id}: {why}" if why else ""
        if text != (found[self._open_key].text if self._open_key in found else ""):
            await self._etcd.transact(
                [self._served.still_claimed()], [put(self._open_key, text) if text else delete(self._open_key)]
            )


def newest_prefix(prefixes: tuple[str, ...], found: Mapping[str, Value]) -> str | None:
    """Below which of ``prefixes`` the newest decision is; None where there is none."""
    with_one = [prefix for prefix in prefixes if prefix + keys.DECISION in found]
    return max(with_one, key=lambda prefix: found[prefix + keys.DECISION].revision, default=None)


def _command(stored: StoredMessage) -> CommandSeen | None:
    message = stored.message
    if not isinstance(message, v1.DeploymentControl):
        return None
    return CommandSeen(stored.sequence, message.action, message.command_id, message.issued_by, message.replicas)


def _plan(stored: StoredMessage) -> OurPlan | None:
    record = stored.message
    if not isinstance(record, v1.PlanRecord):
        return None
    pools = {
        name: PlannedPool(pool.role, pool.granted, _why(pool), pool.min_replicas, pool.max_replicas)
        for name, pool in record.pools.items()
    }
    return OurPlan(record.pin_id, pools)


def _why(pool: v1.PoolRecord) -> str:
    """The sentence of the last limit that changed the count."""
    steps = [pool.wanted, *pool.values]
    moved = [reason for before, after, reason in zip(steps, steps[1:], pool.chain, strict=False) if before != after]
    sentences = [reason.text or reason.code for reason in (moved or pool.chain)]
    return sentences[-1] if sentences else ""
