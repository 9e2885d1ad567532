"""How client commands find the bus: `--nats-url`, else WATTSCALE_NATS_URL, else this user's last `up`."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from deploy.cli.errors import UsageError

if TYPE_CHECKING:
    from bus_schemas.jetstream.connect import Bus

DEFAULT_PREFIX = "wattscale"


def add_bus_options(parser: argparse.ArgumentParser) -> None:
    """Options that name a bus. Secrets come from files or the environment, never from the command line."""
    group = parser.add_argument_group("bus")
    group.add_argument(
        "--nats-url", help="NATS server; default: WATTSCALE_NATS_URL, else this user's last `wattscale up`"
    )
    group.add_argument("--prefix", help="first token of all subjects (default: wattscale)")
    group.add_argument("--creds", metavar="FILE", help="credentials file (JWT)")
    group.add_argument("--nkey", metavar="FILE", help="nkey seed file")
    group.add_argument("--tls-ca", metavar="FILE", help="certificate authority of the server")
    group.add_argument("--tls-cert", metavar="FILE", help="client certificate")
    group.add_argument("--tls-key", metavar="FILE", help="key of the client certificate")


def address(args: argparse.Namespace) -> tuple[str, str]:
    """(server URL, subject prefix). Raises UsageError if no option, variable or last run names a bus."""
    from deploy.demo.last_run import last_known

    url = args.nats_url or os.environ.get("WATTSCALE_NATS_URL")
    if url:
        return url, args.prefix or DEFAULT_PREFIX
    last = last_known()
    if last is None:
        raise UsageError("no bus is known: start `wattscale up`, or name a server with --nats-url")
    return last.nats_url, args.prefix or last.prefix


@asynccontextmanager
async def reached(args: argparse.Namespace) -> AsyncIterator[Bus]:
    """A connection to the bus that the arguments name, closed afterwards. Raises UsageError in one line."""
    from bus_schemas.jetstream.connect import BusUnreachableError, connect
    from bus_schemas.jetstream.settings import BusSettings

    url, prefix = address(args)
    settings = BusSettings(
        servers=(url,),
        prefix=prefix,
        creds_file=args.creds,
        nkey_seed_file=args.nkey,
        tls_ca_file=args.tls_ca,
        tls_cert_file=args.tls_cert,
        tls_key_file=args.tls_key,
        name="wattscale-cli",
    )
    try:
        bus = await connect(settings)
    except BusUnreachableError as error:
        raise UsageError(f"{error}; is the server running? (use --nats-url for another)") from error
    try:
        yield bus
    finally:
        await bus.close()
