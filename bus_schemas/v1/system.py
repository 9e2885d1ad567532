"""Messages of the bus itself: the leadership lease and dead letters."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bus_schemas.v1.message import Message, Name


class Lease(Message):
    """Leadership. The message's stream sequence is the epoch under which its holder publishes."""

    type: Literal["wattscale.v1.lease"] = "wattscale.v1.lease"
    holder: Name
    ttl_s: float = Field(gt=0)
    renewals: int = Field(default=0, ge=0)
    released: bool = False
    """An orderly stop: anyone may take over at once."""


class DeadLetter(Message):
    """A message that can not be carried out, kept as it came, with the reason."""

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
