"""Bytes to messages and back, and the headers that go with them. Pure."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import ValidationError

from bus_schemas.v1 import MESSAGES, Message

MAX_BODY_BYTES = 1_000_000
CONTENT_TYPE = "application/json"
M = TypeVar("M", bound=Message)
_BY_TYPE: dict[str, type[Message]] = {cls.type_name(): cls for cls in MESSAGES}


class Undecodable(ValueError):  # noqa: N818 - names what the body is
    """A body that is not a message of this contract; ``reason`` is one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def encode(message: Message) -> bytes:
    """The body: JSON that begins with ``type``."""
    return message.model_dump_json().encode()


def decode(body: bytes) -> Message:
    """The message in ``body``, by its ``type``. Raises Undecodable; never anything else."""
    cls = _BY_TYPE.get(_type_of(body))
    if cls is None:
        raise Undecodable(f"unknown message type {_type_of(body)!r}")
    return _validate(cls, body)


def decode_as(cls: type[M], body: bytes) -> M:
    """``decode``, refusing any other type than ``cls``."""
    found = _type_of(body)
    if found != cls.type_name():
        raise Undecodable(f"expected type {cls.type_name()!r}, not {found!r}")
    return _validate(cls, body)


def _type_of(body: bytes) -> str:
    if len(body) > MAX_BODY_BYTES:
        raise Undecodable(f"body of {len(body)} bytes is over the limit of {MAX_BODY_BYTES}")
    try:
        value: Any = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Undecodable(f"not JSON: {error}") from error
    found = value.get("type") if isinstance(value, dict) else None
    if not isinstance(found, str):
        raise Undecodable("no 'type' in the body")
    return found


def _validate(cls: type[M], body: bytes) -> M:
    try:
        return cls.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise Undecodable(f"{cls.type_name()}: {where}: {first['msg']}") from error


def headers(message: Message, msg_id: str, source: str, traceparent: str | None = None) -> dict[str, str]:
    """Headers of a stored message: deduplication, content type, CloudEvents binary mode, W3C trace context."""
    said = {
        "Nats-Msg-Id": msg_id,
        "Content-Type": CONTENT_TYPE,
        "ce-specversion": "1.0",
        "ce-id": msg_id,
        "ce-type": message.type,
        "ce-source": source,
        "ce-time": message.model_dump(mode="json", include={"time"})["time"],
    }
    if traceparent:
        said["traceparent"] = traceparent
    return said
