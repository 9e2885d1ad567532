"""Encodes and decodes messages, and builds and checks their headers.

Pure. Decoding returns a message or raises UndecodableError, for any bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from typing import Annotated, Any, TypeVar, Union

from pydantic import Field, TypeAdapter, ValidationError

from bus_schemas.errors import (
    BadNameError,
    NotJsonError,
    TooLargeError,
    UndecodableError,
    UnknownTypeError,
    WrongContentError,
)
from bus_schemas.v1 import MESSAGES, Message

__all__ = [
    "CONTENT_TYPE",
    "MAX_BODY_BYTES",
    "UndecodableError",
    "check_headers",
    "decode",
    "decode_as",
    "encode",
    "headers",
    "traceparent_of",
]

M = TypeVar("M", bound=Message)
CONTENT_TYPE = "application/json"
MAX_BODY_BYTES = 1 << 20
"""The server's default size limit of a message."""
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_ANY: TypeAdapter[Message] = TypeAdapter(Annotated[Union[MESSAGES], Field(discriminator="type")])  # type: ignore[arg-type]  # noqa: UP007


def encode(message: Message) -> bytes:
    """The body as JSON, ``type`` first."""
    return message.model_dump_json().encode()


def decode(body: bytes) -> Message:
    """Any message of v1, by its ``type``. Raises UndecodableError."""
    if len(body) > MAX_BODY_BYTES:
        raise TooLargeError(f"{len(body)} bytes; a message has at most {MAX_BODY_BYTES}")
    try:
        return _ANY.validate_json(body)
    except ValidationError as error:
        raise _undecodable(error) from error


def decode_as(cls: type[M], body: bytes) -> M:
    """A message of this class. Raises UndecodableError, also for a valid message of another type."""
    message = decode(body)
    if not isinstance(message, cls):
        raise UnknownTypeError(f"a {message.type} where a {cls.type_name()} belongs")
    return message


def headers(message: Message, msg_id: str, source: str, traceparent: str | None = None) -> dict[str, str]:
    """Headers of a message: CloudEvents binary mode, content type, and the id by which the server drops repeats.

    Raises BadNameError for an id or source that a header cannot carry, or for a malformed ``traceparent``.
    """
    for what, value in (("message id", msg_id), ("source", source)):
        if not value or not value.isascii() or not value.isprintable() or value[0] == " " or value[-1] == " ":
            raise BadNameError(f"the {what} {value!r} must be printable ASCII")
    made = {
        "Nats-Msg-Id": msg_id,
        "Content-Type": CONTENT_TYPE,
        "ce-specversion": "1.0",
        "ce-id": msg_id,
        "ce-type": message.type,
        "ce-source": source,
        "ce-time": message.time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
    }
    if traceparent is not None:
        if not _TRACEPARENT.fullmatch(traceparent):
            raise BadNameError(f"{traceparent!r} is not a W3C traceparent")
        made["traceparent"] = traceparent
    return made


def traceparent_of(found: Mapping[str, str] | None) -> str | None:
    """The W3C trace context in a message's headers; None where it is absent or malformed."""
    value = (found or {}).get("traceparent", "")
    return value if _TRACEPARENT.fullmatch(value) else None


def check_headers(message: Message, found: Mapping[str, str] | None) -> None:
    """Raises WrongContentError where the headers contradict the body. Absent headers are accepted."""
    if not found:
        return
    ce_type = found.get("ce-type")
    if ce_type is not None and ce_type != message.type:
        raise WrongContentError(f"header ce-type is {ce_type}, the body's type {message.type}")
    content = found.get("Content-Type")
    if content is not None and content.partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise WrongContentError(f"Content-Type is {content}, not {CONTENT_TYPE}")
    ce_id, msg_id = found.get("ce-id"), found.get("Nats-Msg-Id")
    if ce_id is not None and msg_id is not None and ce_id != msg_id:
        raise WrongContentError(f"header ce-id is {ce_id}, but Nats-Msg-Id {msg_id}")


def _undecodable(error: ValidationError) -> UndecodableError:
    first: dict[str, Any] = dict(error.errors(include_url=False, include_input=False)[0])
    kind = first["type"]
    if kind in {"json_invalid", "json_type", "model_type", "model_attributes_type", "dict_type"} and not first["loc"]:
        return NotJsonError(f"not a JSON object: {first['msg']}")
    if kind == "union_tag_not_found":
        return UnknownTypeError("no field 'type': not a message of this contract")
    if kind == "union_tag_invalid":
        tag = str(first["ctx"]["tag"])[:100]
        if re.match(r"wattscale\.v\d+\.", tag) and not tag.startswith("wattscale.v1."):
            return UnknownTypeError(f"type {tag!r} is of a version this reader does not know (v1 only)")
        return UnknownTypeError(f"type {tag!r} is not one of v1")
    where = ".".join(str(part) for part in first["loc"][:6])
    return WrongContentError(f"{where}: {first['msg']}"[:500])
