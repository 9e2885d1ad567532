"""Claims on the bus: one connector for a deployment, and one deployment for a target, whatever kinds they are of.

A claim is a message with a time to live, renewed by its holder. The server compares sequences, so that of two
connectors that claim at once one gets it. A holder that was killed is followed within the time to live. Must never take
a claim that is being renewed, and never go on once another connector holds ours.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from agent.core.scaling.claims import Holder, refusal, shared_targets
from bus_schemas import codec, v1
from bus_schemas.errors import BusAwayError, NotStoredError
from bus_schemas.jetstream.api import NOT_THE_LAST, answer, ask, error_of
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import last_raw, sequence_of, stored
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together

log = logging.getLogger(__name__)
CLAIM_TTL_S = 10.0
"""How long the claim of a connector that was killed stands."""
LONGEST_TTL_S = 60.0
"""A claim that is not renewed is overwritten after this time, whatever term it states."""
MOST_TEXT = 253
MOST_NOTES, MOST_NOTE = 10, 1000
"""Notes in a claim, and characters of each."""
RENEWALS_PER_TTL = 3.0
MOST_RENEWALS_PER_S, MOST_AT_ONCE = 50.0, 20
"""Of one connector: each renewal is a write that the server brings to its disk."""
LOOK_S = 0.2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0


class SecondConnectorError(Exception):
    """Another connector scales the same; the text names both."""


class BusClaim:
    """One subject that one connector holds. ``text``: the holder as others read it; differs between two processes.

    ``notes``: what operators should correct; read at each renewal, for `wattscale status` and `verify`.
    ``acknowledges``: whether the holder acknowledges decisions.
    """

    def __init__(
        self,
        bus: Bus,
        subject: str,
        text: str,
        ttl_s: float,
        notes: Callable[[], Sequence[str]] = tuple,
        *,
        acknowledges: bool = True,
    ) -> None:
        self._bus = bus
        self._subject = subject
        self._text = text if len(text) <= MOST_TEXT else f"{text[: MOST_TEXT - 33]}~{digest(text)}"
        self._ttl_s = float(max(1, math.ceil(ttl_s)))
        self._notes = notes
        self._acknowledges = acknowledges
        self._sequence = 0
        self._confirmed_s = -math.inf
        self._writes = 0
        self._life = uuid.uuid4().hex[:12]

    @property
    def fresh(self) -> bool:
        """Whether the claim was ours so lately that it cannot have run out before it is renewed."""
        return asyncio.get_running_loop().time() - self._confirmed_s < self._ttl_s / 2

    async def take(self) -> str | None:
        """Take the claim; None where it is ours, else who holds it. Waits out the claim of a killed holder.

        Raises BusAwayError, NotStoredError.
        """
        loop = asyncio.get_running_loop()
        seen, since_s = 0, loop.time()
        while True:
            sequence, held = await self._newest()
            if held is None or held.released or held.holder == self._text:
                if await self._write(sequence):
                    return None
                await asyncio.sleep(LOOK_S)
                continue
            if seen and sequence != seen:
                return held.holder  # it was renewed meanwhile
            if not seen:
                seen, since_s = sequence, loop.time()
            elif loop.time() - since_s > min(held.ttl_s, LONGEST_TTL_S) + 1.0 and await self._write(sequence):
                return None  # The server should have removed it; it has not been renewed for its whole term.
            await asyncio.sleep(LOOK_S)

    async def keep(self) -> str:
        """Renew until another connector holds the claim; returns that one. Survives a bus that is away."""
        pause_s = self._ttl_s / RENEWALS_PER_TTL
        while True:
            await asyncio.sleep(pause_s)
            try:
                if await self._write(self._sequence):
                    continue
                # Our message has expired while the bus or this process was away, or another connector took over.
                if (other := await self.take()) is not None:
                    return other
            except (BusAwayError, NotStoredError) as error:
                log.warning("the claim on %s is not renewed: %s", self._subject, error)

    async def release(self) -> None:
        """Let the next one take the claim at once. No effect where the bus is away."""
        try:
            expected = -1
            while self._sequence != expected:
                expected = self._sequence
                if await self._write(expected, released=True):
                    return
                # A renewal that was cancelled before its answer came is newer: then that one is what is released.
        except (BusAwayError, NotStoredError):
            pass  # It expires.

    async def _write(self, expected: int, *, released: bool = False) -> bool:
        """Whether our message is now the newest one. Raises BusAwayError, NotStoredError."""
        sent_s = asyncio.get_running_loop().time()
        self._writes += 1
        message = v1.Lease(
            time=datetime.now(UTC),
            holder=self._text,
            ttl_s=self._ttl_s,
            renewals=self._writes - 1,
            released=released,
            notes=tuple(note[:MOST_NOTE] for note in self._notes()[:MOST_NOTES]),
            acknowledges=self._acknowledges,
        )
        msg_id = f"claim-{self._life}-{self._writes}"
        headers = codec.headers(message, msg_id, self._bus.settings.name)
        headers["Nats-TTL"] = f"{int(self._ttl_s)}s"
        headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        value = answer(await ask(self._bus, self._subject, codec.encode(message), headers))
        problem = error_of(value)
        if problem is None:
            self._sequence, self._confirmed_s = int(value["seq"]), sent_s
            return True
        if problem.code not in NOT_THE_LAST:
            raise NotStoredError(f"{self._subject}: {problem.text}", problem.code)
        # A write whose answer was lost looks like one of another connector: the holder shows whose it is.
        sequence, held = await self._newest()
        if held is None or held.holder != self._text:
            return False
        self._sequence = sequence
        return held.released == released

    async def _newest(self) -> tuple[int, v1.Lease | None]:
        """The sequence of the newest message, 0 without one, and what it claims; None where it claims nothing."""
        raw = await last_raw(self._bus, self._subject)
        if raw is None:
            return 0, None
        found = stored(raw)
        return sequence_of(raw), found.message if found is not None and isinstance(found.message, v1.Lease) else None


def no_notes(_: str) -> Sequence[str]:
    """Of a connector that acknowledges: its acknowledgements carry the reasons."""
    return ()


@asynccontextmanager
async def claimed(
    bus: Bus,
    own: Holder,
    targets: Mapping[str, Mapping[str, str]],
    ttl_s: float = CLAIM_TTL_S,
    notes: Callable[[str], Sequence[str]] = no_notes,
    *,
    acknowledges: bool = True,
) -> AsyncIterator[ConnectorClaims]:
    """Hold deployments and their targets for the body. Run `ConnectorClaims.keep` beside the work.

    ``targets``: by deployment and pool, a name that is unique among all clusters. ``notes``: by deployment, what
    operators should correct. ``acknowledges``: whether this connector acknowledges decisions. With very many claims
    their term is longer than ``ttl_s``: renewals stay few. Waits for a bus that is away. Raises SecondConnectorError.
    """
    if doubled := shared_targets(targets):
        raise SecondConnectorError("; ".join(doubled))
    claims = ConnectorClaims(bus, own, targets, ttl_s, notes, acknowledges=acknowledges)
    try:
        await claims.take()
        yield claims
    finally:
        await claims.release()


@dataclass(frozen=True, slots=True)
class _Claimed:
    """What one claim is on. ``pool`` and ``target`` empty: the deployment itself."""

    deployment: str
    pool: str = ""
    target: str = ""


class ConnectorClaims:
    """All claims of one connector; see `claimed`."""

    def __init__(
        self,
        bus: Bus,
        own: Holder,
        targets: Mapping[str, Mapping[str, str]],
        ttl_s: float,
        notes: Callable[[str], Sequence[str]],
        *,
        acknowledges: bool,
    ) -> None:
        self._bus = bus
        self._own = own
        name = f"{own.name} ({own.instance})"
        number = len(targets) + sum(map(len, targets.values()))
        ttl_s = min(LONGEST_TTL_S, max(ttl_s, RENEWALS_PER_TTL * number / MOST_RENEWALS_PER_S))
        self._claims: dict[_Claimed, BusClaim] = {}
        for deployment, pools in targets.items():
            subject = bus.subjects.claim_deployment(deployment)
            own_notes = partial(notes, deployment)
            claim = BusClaim(bus, subject, name, ttl_s, own_notes, acknowledges=acknowledges)
            self._claims[_Claimed(deployment)] = claim
            for pool, target in pools.items():
                subject = bus.subjects.claim_target(digest(target))
                text = f"{deployment}/{pool} {name}"
                self._claims[_Claimed(deployment, pool, target)] = BusClaim(bus, subject, text, ttl_s)
        self._taken: set[BusClaim] = set()

    async def take(self) -> None:
        """Take all claims, the deployments' before their targets'. Raises SecondConnectorError.

        While one of them is waited for, others may run out and be another connector's: they are taken again, until all
        are held at one time.
        """
        at_once = asyncio.Semaphore(MOST_AT_ONCE)
        while old := [(what, one) for what, one in self._claims.items() if not one.fresh]:
            for of_targets in (False, True):
                some = [(what, one) for what, one in old if bool(what.target) == of_targets]
                refused = await asyncio.gather(*(self._take(what, one, at_once) for what, one in some))
                if sentences := [one for one in refused if one]:
                    raise SecondConnectorError("; ".join(sentences))

    async def _take(self, what: _Claimed, claim: BusClaim, at_once: asyncio.Semaphore) -> str:
        """Take one claim; why it cannot be taken, or empty."""
        backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while True:
            try:
                await self._bus.ready()
                async with at_once:
                    other = await claim.take()
                break
            except (BusAwayError, NotStoredError) as error:
                log.warning("decisions wait: %s; where the streams are older, run `wattscale streams apply`", error)
                await asyncio.sleep(backoff.next_s())
        if other is not None:
            return self._refusal(what, other)
        self._taken.add(claim)
        return ""

    async def keep(self) -> None:
        """Renew all claims until cancelled. Raises SecondConnectorError when another connector holds one."""
        await run_together({f"claim {number}": self._keep(*one) for number, one in enumerate(self._claims.items())})

    async def _keep(self, what: _Claimed, claim: BusClaim) -> None:
        raise SecondConnectorError(self._refusal(what, await claim.keep()))

    async def release(self) -> None:
        """Give up what is held."""
        await asyncio.gather(*(claim.release() for claim in self._taken))

    def _refusal(self, what: _Claimed, other: str) -> str:
        """The sentence for a claim that another connector holds."""
        if not what.target:
            name, _, instance = other.rpartition(" (")
            return str(refusal(what.deployment, self._own, Holder(name, instance.removesuffix(")"))))
        theirs, _, holder = other.partition(" ")
        deployment, _, pool = theirs.rpartition("/")
        if deployment == what.deployment:
            return f"target {what.target} of pool {what.pool} is held for pool {pool} of this deployment by {holder}"
        (sentence,) = shared_targets({deployment: {pool: what.target}, what.deployment: {what.pool: what.target}})
        return f"{sentence} ({holder} scales it now)"


def digest(target: str) -> str:
    """A target's name as a subject token."""
    return hashlib.sha256(target.encode()).hexdigest()[:32]
