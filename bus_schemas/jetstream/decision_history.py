"""Checks of the stream of decisions: that it keeps each node's last decision, and that it is not an old copy.

The last decision of a node is all that the next leader knows of the watts that the node may draw. Reads only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bus_schemas import v1
from bus_schemas.errors import ProvisionRefusedError
from bus_schemas.jetstream.api import error_of, stream_info
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import last, last_per_subject
from bus_schemas.streams import DECISIONS, forgets

NOT_FOUND = 10059


@dataclass(frozen=True, slots=True)
class StreamState:
    """A stream as the server describes it."""

    config: Mapping[str, Any]
    last_sequence: int
    at: datetime
    """When it was described, by the server's clock."""


async def decisions_state(bus: Bus) -> StreamState | None:
    """The stream of decisions now; None where there is none. Raises BusAwayError, ProvisionRefusedError."""
    value = await stream_info(bus, DECISIONS)
    refusal = error_of(value)
    if refusal is not None:
        if refusal.code == NOT_FOUND:
            return None
        raise ProvisionRefusedError(f"STREAM.INFO.{DECISIONS}: {refusal.text}")
    return StreamState(value["config"], int(value["state"]["last_seq"]), datetime.fromisoformat(value["ts"]))


async def last_led(bus: Bus) -> datetime | None:
    """When a planner last led, as the lease stored in the stream states it; None without one. Raises BusAwayError."""
    found = await last(bus, bus.subjects.led())
    return found.message.time if found is not None and isinstance(found.message, v1.Lease) else None


async def forgetful(bus: Bus) -> str:
    """Why the stream may lose the last decision of a silent node, with the remedy; empty if it cannot, or has none."""
    state = await decisions_state(bus)
    return "" if state is None else forgets(state.config)


async def put_back(bus: Bus) -> list[str]:
    """One sentence for each node whose last answer is newer than its last decision: the stream is an old copy."""
    subjects = bus.subjects
    decided = {
        stored.message.node: stored.message
        for stored in await last_per_subject(bus, subjects.all_of("decision", "power"))
        if isinstance(stored.message, v1.PowerDecision)
    }
    found = []
    for stored in await last_per_subject(bus, subjects.all_of("ack", "power")):
        ack = stored.message
        if isinstance(ack, v1.PowerAck) and (sentence := _newer(ack, decided.get(ack.node))):
            found.append(sentence)
    return found


def _newer(ack: v1.PowerAck, last: v1.PowerDecision | None) -> str:
    if last is None:
        return f"{ack.node} answered decision {ack.decision_id}, and no decision of it is stored"
    if ack.incarnation not in {"", last.incarnation}:
        return ""
    if ack.epoch > last.epoch:
        return f"{ack.node} answered epoch {ack.epoch}, and its last decision stored is of epoch {last.epoch}"
    if ack.epoch == last.epoch and ack.decision_id > last.decision_id:
        return f"{ack.node} answered decision {ack.decision_id}, and its last one stored is {last.decision_id}"
    return ""
