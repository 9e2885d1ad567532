"""Requests to the server and their replies, with this package's errors instead of the client library's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.errors import APIError

from bus_schemas.errors import BusAwayError, NoServiceError, NotPermittedError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.cancellation import cancellation_kept

T = TypeVar("T")
ASK_AGAIN_S = 0.1


async def ask(
    bus: Bus, subject: str, body: bytes = b"", headers: dict[str, str] | None = None, timeout_s: float | None = None
) -> Msg:
    """Send one request and return the reply.

    Raises BusAwayError without a reply within ``timeout_s`` (default: the connection's request time-out), and
    NotPermittedError where the server has refused the subject.
    """
    limit_s = timeout_s or bus.settings.request_timeout_s

    async def once() -> Msg:
        with package_errors(bus, subject):
            return await bus.nc.request(subject, body, timeout=limit_s, headers=headers)

    return await served(bus, once)


async def served(bus: Bus, request: Callable[[], Awaitable[T]]) -> T:
    """What ``request`` returns, tried again within the connection's ``no_service_wait_s`` while nothing serves it.

    Raises what ``request`` raises: NoServiceError after that time.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            return await request()
        except NoServiceError:
            if bus.served_by_s is None:
                bus.served_by_s = loop.time() + bus.settings.no_service_wait_s
            if loop.time() >= bus.served_by_s:
                raise
        await asyncio.sleep(ASK_AGAIN_S)


@contextmanager
def package_errors(bus: Bus, subject: str) -> Iterator[None]:
    """Around one request through the client library: its errors become this package's. ``subject`` names the request.

    Raises BusAwayError, NotPermittedError. A refusal by the JetStream API (``nats.js.errors.APIError``) passes through.
    """
    if not bus.nc.is_connected:
        # The client would buffer the request and send it after the reconnect, when it may be stale.
        raise BusAwayError(f"{subject}: not connected")
    try:
        with cancellation_kept():
            yield
    except NoRespondersError as error:
        raise no_service(subject) from error
    except APIError as error:
        if error.code is None:
            # The library's form of "no responders" for an API request.
            raise no_service(subject) from error
        raise
    except BusAwayError:
        raise
    except (NatsError, TimeoutError, OSError) as error:
        raise away(bus, subject, error) from error


def no_service(subject: str) -> NoServiceError:
    """The error to raise where nothing serves the request."""
    return NoServiceError(f"{subject}: no service answers there; does the stream exist?")


def away(bus: Bus, subject: str, error: BaseException | None = None) -> BusAwayError:
    """The error to raise for a request without a reply: NotPermittedError where the server refused the subject."""
    refusal = bus.denied(subject)
    if refusal is not None:
        return NotPermittedError(refusal)
    return BusAwayError(f"{subject}: {(str(error) if error else '') or 'no answer'}")


def answer(reply: Msg) -> dict[str, Any]:
    """The JSON object in a JetStream reply; empty where the body is not one."""
    try:
        value = json.loads(reply.data or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


async def stream_info(bus: Bus, stream: str, query: bytes = b"") -> dict[str, Any]:
    """The server's description of a stream, or its refusal. Raises BusAwayError, NotPermittedError.

    In an account that has no JetStream of its own (observers, operators) the server answers the API's own subject for
    that account, which has no streams: such an account imports the description under another subject.
    """
    value = answer(await ask(bus, f"$JS.API.STREAM.INFO.{stream}", query))
    refusal = error_of(value)
    if refusal is not None and refusal.code == NOT_ENABLED_FOR_ACCOUNT:
        return answer(await ask(bus, bus.subjects.stream_info(stream), query))
    return value


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the server refused a request."""

    code: int
    """The server's error number (``err_code``)."""
    text: str
    passing: bool
    """Whether the same request may succeed soon."""


NOT_ENABLED_FOR_ACCOUNT = 10039
WRONG_LAST_SEQUENCE = 10071
SEQUENCE_IN_FLIGHT = 10164
NOT_THE_LAST = frozenset({WRONG_LAST_SEQUENCE, SEQUENCE_IN_FLIGHT})
"""Refusals of a write whose ``Nats-Expected-Last-Subject-Sequence`` does not hold: another message came first."""
BATCH_INCOMPLETE = 10176
BUSY = 429


def error_of(value: dict[str, Any]) -> Refusal | None:
    """The refusal in a reply, or None where the request succeeded."""
    problem = value.get("error")
    if not isinstance(problem, dict):
        return None
    code = int(problem.get("err_code", 0))
    # Codes from 429 on: too many requests, no leader elected yet, storage short.
    passing = int(problem.get("code", 0)) >= BUSY or code in (SEQUENCE_IN_FLIGHT, BATCH_INCOMPLETE)
    return Refusal(code, str(problem.get("description", problem)), passing)
