"""Feeds an actuator decisions, repetitions, outdated and impossible ones, and collects its acknowledgements.

Acts as the planner of one deployment, with an incarnation of its own. Must never run beside a planner that leads there:
run it within `alone`.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bus_schemas import v1
from bus_schemas.jetstream.api import ask
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable, keep
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages, last
from bus_schemas.jetstream.tasks.task_group import ended
from deploy.connector_check.judgement import CheckedTraffic, Key, judged, key_of, refused_for_good

POLL_S = 0.1
NO_POOL = "no-such-pool-of-connector-check"
ABSURD = 1_000_000
IN_ORDER = 3


class RestartFailedError(Exception):
    """The actuator was not restarted; the text says why."""


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """``pools``: by name, role and two counts between which the actuator is asked to scale."""

    deployment: str
    pools: Mapping[str, tuple[str, int, int]]
    timeout_s: float = 120.0
    """How long one decision may take."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the report. ``breaches`` empty: it passed. ``skipped``: why it was not tried."""

    name: str
    breaches: tuple[str, ...] = ()
    skipped: str = ""


@dataclass
class ConnectorCheck:
    """One run.

    ``restart``: ends and starts the actuator, and may raise RestartFailedError; cancelled where it takes longer than a
    decision may. None: that is not tried.
    """

    bus: Bus
    settings: CheckSettings
    restart: Callable[[], Awaitable[None]] | None = None
    sent: list[v1.ScalingDecision] = field(default_factory=list)
    impossible: set[Key] = field(default_factory=set)
    past: set[Key] = field(default_factory=set)
    results: list[CheckResult] = field(default_factory=list)
    _incarnation: str = ""
    _next_id: int = 0
    _after: int = 0
    _messages: int = 0

    async def run(self) -> list[CheckResult]:
        """All results, in order. Raises errors of the bus."""
        self._renew()
        acks = await last(self.bus, self.bus.subjects.ack_scaling(self.settings.deployment))
        self._after = 0 if acks is None else acks.sequence
        durable = [Durable.scaling(self.bus, self.settings.deployment)]
        keeper = asyncio.create_task(keep(self.bus, lambda: durable))
        try:
            if await self._try("completes a decision", self._completes):
                for name, trial in self._trials().items():
                    await self._try(name, trial)
                await self._restarts()
            else:
                self.results += [CheckResult(name, skipped="nothing was completed") for name in self._trials()]
        finally:
            await ended(keeper)
        traffic = CheckedTraffic(self.sent, await self.acks(), frozenset(self.impossible), frozenset(self.past))
        self.results += [CheckResult(name, breaches) for name, breaches in judged(traffic).items()]
        return self.results

    def _trials(self) -> dict[str, Callable[[], Awaitable[str]]]:
        return {
            "completes decisions in order": self._in_order,
            "survives a decision that is delivered again": self._again,
            "lets a newer decision take the place of an older one": self._overtaken,
            "ignores an outdated decision": self._outdated,
            "refuses a pool that does not exist": self._unknown_pool,
            "refuses an absurd count": self._absurd,
            "survives bytes that are no message": self._garbage,
            "begins again at 0 with a new incarnation": self._new_incarnation,
        }

    async def acks(self) -> list[v1.ScalingAck]:
        """All acknowledgements since the run began."""
        subject = self.bus.subjects.ack_scaling(self.settings.deployment)
        stored = await all_messages(self.bus, subject, self._after)
        return [one.message for one in stored if isinstance(one.message, v1.ScalingAck)]

    def _renew(self) -> None:
        self._incarnation, self._next_id = f"check-{uuid.uuid4().hex[:8]}", 0

    async def _try(self, name: str, trial: Callable[[], Awaitable[str]]) -> bool:
        why = await trial()
        self.results.append(CheckResult(name, (why,) if why else ()))
        return not why

    def _decision(self, *, high: bool, **changes: object) -> v1.ScalingDecision:
        pools = {
            name: v1.PoolTarget.model_validate({"role": role, "replicas": most if high else least})
            for name, (role, least, most) in self.settings.pools.items()
        }
        by_role = {target.role: target.replicas for target in pools.values()}
        made = v1.ScalingDecision(
            time=datetime.now(UTC),
            deployment=self.settings.deployment,
            decision_id=self._next_id,
            incarnation=self._incarnation,
            epoch=1,
            num_prefill_workers=by_role.get("prefill", -1),
            num_decode_workers=by_role.get("decode", -1),
            pools=pools,
        )
        self._next_id += 1
        return made.model_copy(update=changes)

    async def _send(self, decision: v1.ScalingDecision, *, again: bool = False) -> v1.ScalingDecision:
        self._messages += 1
        msg_id = f"{self._incarnation}-{decision.decision_id}-{self._messages}"
        await publish(self.bus, self.bus.subjects.decision_scaling(self.settings.deployment), decision, msg_id)
        if not again:
            self.sent.append(decision)
        return decision

    async def _until(self, holds: Callable[[list[v1.ScalingAck]], bool]) -> bool:
        loop = asyncio.get_running_loop()
        since_s = loop.time()
        while not holds(await self.acks()):
            if loop.time() - since_s > self.settings.timeout_s:
                return False
            await asyncio.sleep(POLL_S)
        return True

    async def _completed(self, decision: v1.ScalingDecision) -> str:
        """Wait for a decision's completion; why there is none, or empty."""
        key = key_of(decision)

        def over(acks: list[v1.ScalingAck]) -> bool:
            return any(key_of(one) == key and (_done(one, decision) or refused_for_good(one)) for one in acks)

        if not await self._until(over):
            return f"decision {decision.decision_id} is not completed after {self.settings.timeout_s:g} s"
        refusals = [one for one in await self.acks() if key_of(one) == key and refused_for_good(one)]
        return f"decision {decision.decision_id} is {refusals[-1].status}: {refusals[-1].reason}" if refusals else ""

    async def _answers(self, decision: v1.ScalingDecision) -> list[v1.ScalingAck]:
        """All answers to a decision once it is refused for good or completed, or its time is over."""
        await self._send(decision)
        key = key_of(decision)
        await self._until(
            lambda acks: any(key_of(a) == key and (_done(a, decision) or refused_for_good(a)) for a in acks)
        )
        return [one for one in await self.acks() if key_of(one) == key]

    async def _completes(self) -> str:
        return await self._completed(await self._send(self._decision(high=False)))

    async def _in_order(self) -> str:
        for number in range(IN_ORDER):
            if why := await self._completed(await self._send(self._decision(high=number % 2 == 0))):
                return why
        return ""

    async def _again(self) -> str:
        await self._send(self.sent[-1], again=True)
        return await self._completed(await self._send(self._decision(high=False)))

    async def _overtaken(self) -> str:
        await self._send(self._decision(high=True))
        return await self._completed(await self._send(self._decision(high=False)))

    async def _outdated(self) -> str:
        # An id of this incarnation that was never sent, below ids that were completed.
        skipped, newest = self._next_id, self._decision(high=True)
        newest = newest.model_copy(update={"decision_id": skipped + 1})
        self._next_id = skipped + 2
        if why := await self._completed(await self._send(newest)):
            return why
        old = self._decision(high=False, decision_id=skipped)
        self._next_id = skipped + 2
        self.past.add(key_of(old))
        await self._send(old)
        return await self._completed(await self._send(self._decision(high=False)))

    async def _unknown_pool(self) -> str:
        answers = await self._answers(self._decision(high=False, other_pools={NO_POOL: 1}))
        # An actuator that leaves pools without GPUs to others says so, with the pool's name.
        if not any(refused_for_good(one) or NO_POOL in one.reason for one in answers):
            return f"it neither refuses {NO_POOL} for good, nor says in a reason that it leaves it to others"
        return await self._completed(await self._send(self._decision(high=False)))

    async def _absurd(self) -> str:
        name, (role, _, _) = next(iter(self.settings.pools.items()))
        decision = self._decision(
            high=False, pools={name: v1.PoolTarget.model_validate({"role": role, "replicas": ABSURD})}
        )
        self.impossible.add(key_of(decision))
        if not any(map(refused_for_good, await self._answers(decision))):
            return "it is neither rejected, nor failed with retryable false"
        return await self._completed(await self._send(self._decision(high=False)))

    async def _garbage(self) -> str:
        subject = self.bus.subjects.decision_scaling(self.settings.deployment)
        await ask(self.bus, subject, b'{"type": "wattscale.v1.scaling_decision", "decision_id": "x')
        return await self._completed(await self._send(self._decision(high=True)))

    async def _new_incarnation(self) -> str:
        self._renew()
        return await self._completed(await self._send(self._decision(high=False)))

    async def _restarts(self) -> None:
        name = "goes on after its own restart"
        if self.restart is None:
            self.results.append(CheckResult(name, skipped="no --restart command was given"))
            return
        decision = await self._send(self._decision(high=True))
        why = (
            await self._restarted(self.restart)
            or await self._completed(decision)
            or await self._completed(await self._send(self._decision(high=False)))
        )
        self.results.append(CheckResult(name, (why,) if why else ()))

    async def _restarted(self, restart: Callable[[], Awaitable[None]]) -> str:
        """Restart the actuator; why that failed, or empty."""
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                await restart()
        except RestartFailedError as error:
            return str(error)
        except TimeoutError:
            return f"the restart is not over after {self.settings.timeout_s:g} s: it was ended"
        return ""


def _done(ack: v1.ScalingAck, decision: v1.ScalingDecision) -> bool:
    return ack.scaled_decision_id >= decision.decision_id
