"""Messages of the bus itself: the leadership lease and dead letters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bus_schemas.v1.message import Message, Name, Watts


class Lease(Message):
    """The leadership lease. The stream sequence of a term's first lease is the epoch of that term's decisions."""

    type: Literal["wattscale.v1.lease"] = "wattscale.v1.lease"
    holder: Name
    ttl_s: float = Field(gt=0)
    renewals: int = Field(default=0, ge=0)
    released: bool = False
    """The holder stopped in order: another planner may lead at once."""
    budgets_watts: dict[str, Watts] = Field(default_factory=dict)
    """The budgets in the holder's settings, by site, so that planners that disagree about them are noticed."""
    notes: tuple[str, ...] = ()
    """What operators should correct, as the connector notes it that holds a claim with this message."""
    acknowledges: bool = True
    """False in the claim of a connector that never acknowledges a decision, because others carry it out."""


class DeadLetter(Message):
    """A message that cannot be carried out, stored as it came, with the reason."""

    type: Literal["wattscale.v1.dead_letter"] = "wattscale.v1.dead_letter"
    stream: Name
    consumer: Name
    subject: str
    sequence: int = Field(ge=0)
    reason: str
    headers: dict[str, str] = Field(default_factory=dict)
    body_base64: str = ""
    """The first 64 KiB of the body."""
    body_size: int = Field(default=0, ge=0)
