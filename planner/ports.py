"""The interfaces that the runtime needs: the source of readings, the clock, and the bus."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, runtime_checkable

from bus_schemas import v1
from bus_schemas.v1 import Message
from planner.domain.ids import DeploymentId
from planner.domain.observation import DeploymentObservation


class Observer(Protocol):
    """Reads one deployment's metrics. Never raises for what it reads: what cannot be read is Missing, with a reason."""

    @property
    def deployment(self) -> DeploymentId:
        """The deployment that is read."""
        ...

    async def observe(self, now_s: float) -> DeploymentObservation:
        """The readings since the last call, as of ``now_s`` on the planner's clock."""
        ...

    async def close(self) -> None:
        """Close the connections. Called once."""
        ...


@runtime_checkable
class Rereader(Protocol):
    """An observer whose source keeps the past: ticks without a running planner can be read afterwards.

    Such a source also needs no first reading for later ones to be compared to.
    """

    async def reread(self, then_s: float, now_s: float) -> DeploymentObservation:
        """What ``observe`` would have returned at ``then_s``; both on the planner's clock."""
        ...


class Clock(Protocol):
    """The planner's clock: UTC at its start in production and steady from then on; anything that increases in tests."""

    def __call__(self) -> float: ...


class Listener(Protocol):
    """Takes what arrives on the bus, in order. Must return at once and never raise."""

    def received(self, message: Message, sequence: int) -> None:
        """One acknowledgement, telemetry or control message; ``sequence`` is its place in its stream."""
        ...


@dataclass(frozen=True, slots=True)
class StoredHistory:
    """What the streams hold for a planner that takes the lead: everything that it must not contradict."""

    scaling: tuple[v1.ScalingDecision, ...] = ()
    power: tuple[v1.PowerDecision, ...] = ()
    last_messages: tuple[tuple[Message, int], ...] = ()
    """Last acknowledgement, telemetry and control message of each subject, with its sequence."""
    doubt: str = ""
    """Why the bus may have been restored from an old copy, as one sentence; empty where nothing points to that."""


class Term(Protocol):
    """One term of leadership.

    It ends with ``TermEndedError``, from ``publish`` or in place of the body of ``lead``.
    """

    @property
    def epoch(self) -> int:
        """What fences this term's decisions; above every earlier term's."""
        ...

    async def publish(self, decisions: Sequence[Message], traceparent: str | None = None) -> Sequence[int]:
        """Publish all messages at once, or none. Returns their places in their stream; empty where those are not known.

        Raises TermEndedError when another planner leads, LinkAwayError to try again.
        """
        ...

    async def past(self) -> StoredHistory:
        """What the streams hold now. Read after the lead was won, when no other planner can add to them."""
        ...

    async def records(self, since: datetime) -> Sequence[v1.PlanRecord]:
        """Plan records written since, oldest first. Raises LinkAwayError."""
        ...


@dataclass(frozen=True, slots=True)
class Standing:
    """A candidate's view of the lead."""

    leader: str = ""
    """Who leads, as last seen; empty while that is this process, or none is known."""
    hindrance: str = ""
    """What, other than a leader, keeps this process from leading, as one sentence; empty where nothing does."""
    leader_budgets_watts: Mapping[str, float] = field(default_factory=dict)
    """The budgets in the leader's settings, by site; empty where it does not state them."""
    flooding: tuple[str, ...] = ()
    """Senders that publish more than any correct one does."""


class Link(Protocol):
    """The bus as the service uses it."""

    @property
    def standing(self) -> Standing:
        """Who leads, and what keeps this process from it."""
        ...

    async def listen(self, listener: Listener) -> None:
        """Feed ``listener`` until cancelled, across server restarts; begins with the last message of each subject."""
        ...

    def lead(self) -> AbstractAsyncContextManager[Term]:
        """Waits for the lead; leaving the context releases it, so that another planner can take over at once.

        When the lead is lost inside, the body is cancelled and TermEndedError raised in its place.
        """
        ...

    async def record(self, record: v1.PlanRecord) -> None:
        """Publish a plan record. Best effort: no decision waits for it or depends on it."""
        ...


class TermEndedError(Exception):
    """Another planner leads, or may lead: nothing more may be published under this term."""


class LinkUnfitError(Exception):
    """The bus answers, but no planner may lead over it as it is; the message is one line with the remedy."""


class LinkAwayError(Exception):
    """The bus did not answer. What was sent may or may not be stored; the same messages may be sent again."""
