"""A question to the server and its answer, with this package's errors instead of the client library's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from bus_schemas.errors import BusAwayError, NotPermittedError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.cancellation import cancellation_kept


async def ask(
    bus: Bus, subject: str, body: bytes = b"", headers: dict[str, str] | None = None, timeout_s: float | None = None
) -> Msg:
    """One request.

    Raises BusAwayError where no answer came, NotPermittedError where the server had refused the subject.
    """
    if not bus.nc.is_connected:
        # The client would keep it and send it later: a stale message must not be.
        raise BusAwayError(f"{subject}: not connected")
    limit_s = timeout_s or bus.settings.request_timeout_s
    try:
        with cancellation_kept():
            return await bus.nc.request(subject, body, timeout=limit_s, headers=headers)
    except NoRespondersError as error:
        raise BusAwayError(f"{subject}: nobody answers there; is the stream there?") from error
    except (NatsError, TimeoutError, OSError) as error:
        raise away(bus, subject, error) from error


def away(bus: Bus, subject: str, error: BaseException | None = None) -> BusAwayError:
    """The error for an answer that did not come."""
    said = bus.denied(subject)
    if said is not None:
        return NotPermittedError(said)
    return BusAwayError(f"{subject}: {(str(error) if error else '') or 'no answer'}")


def answer(reply: Msg) -> dict[str, Any]:
    """The body of a JetStream answer; empty where it is none."""
    try:
        value = json.loads(reply.data or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the server did not do what it was asked."""

    code: int
    """The server's own number for the reason."""
    text: str
    passing: bool
    """The same request may be answered otherwise soon."""


SEQUENCE_IN_FLIGHT = 10164
BATCH_INCOMPLETE = 10176
BUSY = 429


def error_of(value: dict[str, Any]) -> Refusal | None:
    """The refusal in an answer, or None for a good one."""
    problem = value.get("error")
    if not isinstance(problem, dict):
        return None
    code = int(problem.get("err_code", 0))
    # From 429 on: too much at once, no leader elected yet, storage short.
    passing = int(problem.get("code", 0)) >= BUSY or code in (SEQUENCE_IN_FLIGHT, BATCH_INCOMPLETE)
    return Refusal(code, str(problem.get("description", problem)), passing)
