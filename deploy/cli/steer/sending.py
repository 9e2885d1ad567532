"""Stores an operator's command on the bus; reports a failure only where it is known not to be stored."""

from __future__ import annotations

import getpass
import uuid
from typing import TYPE_CHECKING, Any, TypeVar

from deploy.cli.bus_connection import what_is_missing
from deploy.cli.errors import BusProblemError, UsageError

if TYPE_CHECKING:
    from bus_schemas import v1
    from bus_schemas.jetstream.connect import Bus

C = TypeVar("C", bound="v1.Message")


async def send(bus: Bus, subject: str, command: v1.Message) -> None:
    """Store the command. If the server's answer is lost, it is looked up on the bus before it counts as failed.

    Raises NotStoredError where it is not stored, and BusProblemError where that cannot be known.
    """
    from bus_schemas.errors import BusAwayError, BusError, NotPermittedError, NotStoredError
    from bus_schemas.jetstream.publisher import publish
    from bus_schemas.jetstream.reader import all_messages

    msg_id = str(uuid.uuid4())
    try:
        await publish(bus, subject, command, msg_id=msg_id)
    except NotStoredError as error:
        if not isinstance(error.__cause__, BusAwayError) or isinstance(error.__cause__, NotPermittedError):
            raise
        try:
            if any(found.msg_id == msg_id for found in await all_messages(bus, subject)):
                return
        except BusError as silence:
            raise BusProblemError(
                await what_is_missing(bus)
                or f"{subject}: no answer, and whether the command is stored cannot be looked up: {silence}; "
                "check before you send it again"
            ) from error
        raise


def command_of(kind: type[C], **fields: Any) -> C:
    """The command. Raises UsageError for a value that no command can carry."""
    from pydantic import ValidationError

    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where or kind.__name__}: {first['msg'].removeprefix('Value error, ')}") from None


def user_name() -> str:
    """The name of the operator who gives a command, for the record; empty where the system knows none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run under a user id without a name.
        return ""
