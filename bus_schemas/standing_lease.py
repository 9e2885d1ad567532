"""How long a message on the lease's subject keeps planners from leading. Pure: ages and terms are arguments.

The server removes a lease when its time to live is over. A message without one stays, and so would everything that
is not a lease: one such message must not stop all planners for good. It counts for one term, then it is overwritten.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from bus_schemas import codec, v1
from bus_schemas.errors import UndecodableError

LONGEST_TTL_S = 300.0
"""No planner's lease is longer: its settings refuse more."""
SLACK_S = 1.0
"""The server counts whole seconds, so a lease may live that much longer than it states."""


@dataclass(frozen=True, slots=True)
class StandingLease:
    """The last message on the lease's subject.

    ``stored_at``: by the server's clock. ``ttl_s``: its time to live on the server; None where it has none.
    ``lease``: None where the body is not a lease; ``flaw`` then names the reason.
    """

    sequence: int
    stored_at: datetime
    ttl_s: float | None
    lease: v1.Lease | None
    flaw: str = ""

    @property
    def free(self) -> bool:
        """Whether its holder released it: another planner may lead at once."""
        return self.lease is not None and self.lease.released

    @property
    def expires(self) -> bool:
        """Whether the server itself removes it in time, so that waiting is enough."""
        return self.lease is not None and self.ttl_s is not None and self.ttl_s <= self.lease.ttl_s + SLACK_S

    def over_after_s(self, own_ttl_s: float) -> float:
        """Seconds after its storage from which on it may be overwritten; never within the term of a living leader.

        A leader renews before its term is over, and its message bears that term as its time to live: what bears none
        was written by no leader, and counts for our own term (``own_ttl_s``).
        """
        stated_s = 0.0
        if self.ttl_s is not None:
            stated_s = min(LONGEST_TTL_S, self.ttl_s if self.lease is None else self.lease.ttl_s)
        return max(own_ttl_s, stated_s) + SLACK_S

    def flaw_text(self) -> str:
        """What is wrong with it where it stands beyond its time, as the beginning of a sentence for operators."""
        if self.lease is None:
            return f"message {self.sequence} on the lease's subject is unreadable ({self.flaw})"
        of = f"the lease of {self.lease.holder!r} (message {self.sequence})"
        return f"{of} has outlived its term" if self.expires else f"{of} has no time to live, or one beyond its term"


def standing(sequence: int, headers: Mapping[str, str], body: bytes) -> StandingLease:
    """The lease message as stored: its sequence, its headers as from a direct get, its body. Never raises."""
    stored_at = _time(headers.get("Nats-Time-Stamp", ""))
    try:
        return StandingLease(sequence, stored_at, _seconds(headers.get("Nats-TTL")), codec.decode_as(v1.Lease, body))
    except UndecodableError as error:
        return StandingLease(sequence, stored_at, _seconds(headers.get("Nats-TTL")), None, error.reason)


def _time(text: str) -> datetime:
    """The server's time; the end of time where there is none, so that the message never becomes old."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)


_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")


def _seconds(text: str | None) -> float | None:
    """A time to live in a header: seconds, or a duration such as ``1h30m``; None for ``never`` and where absent."""
    found = _DURATION.fullmatch(text or "")
    if found is None:
        return None
    hours, minutes, seconds = (float(part or 0.0) for part in found.groups())
    return (3600.0 * hours + 60.0 * minutes + seconds) or None
