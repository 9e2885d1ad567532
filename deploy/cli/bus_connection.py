"""A client command's connection to the bus, and what goes wrong there in one line with what to do.

The reply subjects follow from the role: the server says at once which of them this login may read.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from deploy.cli.bus_address import BusAddress, address
from deploy.cli.errors import BusProblemError, CliError, UsageError

if TYPE_CHECKING:
    from bus_schemas.jetstream.connect import Bus
    from bus_schemas.jetstream.settings import BusSettings

CONNECT_TIMEOUT_S = 5.0
REQUEST_TIMEOUT_S = 2.0
NO_SERVICE_WAIT_S = 2.0
"""A command asks once, and a cluster that elects a leader answers nothing for a moment."""
CLIENT_ROLES = ("operator", "observer", "planner")
NOT_ENABLED = 10039
NKEYS = "this login needs the package nkeys: pip install 'wattscale[nkeys]'"


@asynccontextmanager
async def reached(args: argparse.Namespace) -> AsyncIterator[Bus]:
    """A connection to the bus that the arguments name, closed afterwards.

    Every error of the bus within the block becomes one line: UsageError for bad input, otherwise BusProblemError.
    """
    where = address(args)
    _check_nkeys(where)
    # asyncio warns about TLS connections that the server closes, which explains nothing here.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    with _secrets_of(where):
        bus = await _connected(where)
        try:
            yield bus
        except Exception as error:
            raise await _explained(bus, where, error) from error
        finally:
            await bus.close()


def settings_of(where: BusAddress) -> BusSettings:
    """The connection's settings. Raises UsageError in one line, without secrets."""
    from pydantic import ValidationError

    from bus_schemas.jetstream.settings import BusSettings

    login = where.login
    names = {"creds": "creds_file", "nkey": "nkey_seed_file", "user": "user", "password_file": "password_file"}
    names |= {"token_file": "token_file", "tls_hostname": "tls_hostname", "inbox_prefix": "inbox_prefix"}
    names |= {"tls_ca": "tls_ca_file", "tls_cert": "tls_cert_file", "tls_key": "tls_key_file"}
    given = {names[name]: value for name, value in login.items() if value}
    try:
        return BusSettings(
            servers=where.servers,
            prefix=where.prefix,
            name="wattscale-cli",
            connect_timeout_s=CONNECT_TIMEOUT_S,
            request_timeout_s=REQUEST_TIMEOUT_S,
            no_service_wait_s=NO_SERVICE_WAIT_S,
            **given,
        )
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        option = {value: key for key, value in names.items()}.get(str(problem["loc"][0] if problem["loc"] else ""), "")
        name = f"--{option.replace('_', '-')}: " if option else ""
        raise UsageError(f"{name}{problem['msg'].removeprefix('Value error, ')}") from None


async def _connected(where: BusAddress) -> Bus:
    from bus_schemas.errors import BadNameError, BusUnreachableError, ServerTooOldError
    from bus_schemas.jetstream.connect import connect

    settings = settings_of(where)
    try:
        bus = await connect(settings)
        if where.login.get("inbox_prefix"):
            return bus
        prefix = await _readable_prefix(bus, where)
        if prefix == settings.inbox_prefix:
            return bus
        await bus.close()
        return await connect(settings.model_copy(update={"inbox_prefix": prefix}))
    except BadNameError as error:
        raise UsageError(f"--prefix: {error}") from error
    except ServerTooOldError as error:
        raise BusProblemError(str(error)) from error
    except BusUnreachableError as error:
        raise BusProblemError(f"{error}; is it the right server and login? (--nats-url, --context, --user)") from error


async def _readable_prefix(bus: Bus, where: BusAddress) -> str:
    """The first prefix of reply subjects to which the server lets us subscribe. Raises BusProblemError."""
    from deploy.nats.roles import inbox_prefix

    prefixes = (bus.settings.inbox_prefix, *(inbox_prefix(role) for role in CLIENT_ROLES))
    for prefix in prefixes:
        await bus.nc.subscribe(f"{prefix}.probe")
    # The client's ping overtakes subscriptions that it still buffers. A second one follows them, and the server answers
    # in order: after its reply, every refusal has arrived.
    await bus.nc.flush()
    await bus.nc.flush()
    readable = [prefix for prefix in prefixes if not bus.denied(f"{prefix}.probe")]
    if not readable:
        await bus.close()
        raise BusProblemError(
            f"{where.identity()} may neither read nor steer: no permission for replies on {' or '.join(prefixes)}; "
            "log in as operator or observer, or give --inbox-prefix"
        )
    return readable[0]


def _check_nkeys(where: BusAddress) -> None:
    if where.login.get("creds") or where.login.get("nkey"):
        try:
            import nkeys  # noqa: F401
        except ModuleNotFoundError:
            raise UsageError(NKEYS) from None


@contextmanager
def _secrets_of(where: BusAddress) -> Iterator[None]:
    """A context's password and token, where the connection reads them; gone afterwards."""
    from bus_schemas.jetstream.settings import PASSWORD_ENV, TOKEN_ENV

    given = {name: value for name, value in zip((PASSWORD_ENV, TOKEN_ENV), where.secrets, strict=True) if value}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


async def _explained(bus: Bus, where: BusAddress, error: Exception) -> Exception:
    """The error that a command ends with; errors that are not of the bus stay as they are."""
    from nats.errors import Error as NatsError

    from bus_schemas.errors import BadNameError, BusAwayError, BusError, NotPermittedError

    if isinstance(error, BadNameError):
        return UsageError(str(error))
    if isinstance(error, NotPermittedError) or isinstance(error.__cause__, NotPermittedError):
        return BusProblemError(f"{where.identity()} may not do this: {error.__cause__ or error}")
    if isinstance(error, BusAwayError) or isinstance(error.__cause__, BusAwayError):
        return BusProblemError(await what_is_missing(bus) or f"{', '.join(where.servers)}: {error}")
    if isinstance(error, BusError) and "not enabled for account" in str(error):
        # The roles that look and steer are in accounts that reach the streams, but not JetStream's administration.
        return BusProblemError(await what_is_missing(bus) or f"{where.identity()} may not do this: {error}")
    if isinstance(error, NatsError):
        return BusProblemError(f"{', '.join(where.servers)}: {error}")
    return CliError(str(error)) if isinstance(error, BusError) else error


async def what_is_missing(bus: Bus) -> str:
    """Why the streams do not answer, and what to do; empty where nothing is missing."""
    from bus_schemas.streams import ACKS, CONTROL, DECISIONS, PLANS, TELEMETRY

    names = (DECISIONS, ACKS, CONTROL, TELEMETRY, PLANS)
    where = ", ".join(bus.settings.servers)
    found = await asyncio.gather(*(_is_missing(bus, name) for name in names))
    missing = [name for name, gone in zip(names, found, strict=True) if gone]
    if len(missing) == len(names):
        if await _without_jetstream(bus):
            return f"{where}: the server has no JetStream: start it with -js, or name another server"
        return f"{where}: no streams of Wattscale are there: start a planner, or `wattscale streams apply`"
    if missing:
        are = "is" if len(missing) == 1 else "are"
        return (
            f"{where}: {' and '.join(missing)} {are} gone (telemetry is kept in memory and ends with its server): a "
            "running planner restores it within ten seconds, or `wattscale streams apply`"
        )
    return ""


async def _is_missing(bus: Bus, stream: str) -> bool:
    """Whether the stream is missing; a missing permission or a slow server does not count as that."""
    from nats.errors import Error as NatsError
    from nats.errors import NoRespondersError

    try:
        await bus.nc.request(f"$JS.API.DIRECT.GET.{stream}", b'{"seq":1}', timeout=bus.settings.request_timeout_s)
    except NoRespondersError:
        return True
    except (NatsError, TimeoutError, OSError):
        return False
    return False


async def _without_jetstream(bus: Bus) -> bool:
    """Whether nothing answers requests to JetStream, or it is not enabled for an account that would have it."""
    from bus_schemas.errors import BusError
    from bus_schemas.jetstream.api import answer, ask, error_of
    from bus_schemas.streams import DECISIONS

    try:
        problem = error_of(answer(await ask(bus, f"$JS.API.STREAM.INFO.{DECISIONS}")))
    except BusError as error:
        return "no service" in str(error)
    # A role that reads through another account is always answered so.
    return problem is not None and problem.code == NOT_ENABLED and bus.settings.inbox_prefix == "_INBOX"
