"""How client commands find the bus and who they are there: options, a context of the nats tool, or the environment.

An option replaces what a context says, and a context what the environment says. Without any address, the bus is that of
this user's last `wattscale up`. Secrets come from files or the environment, never from the command line.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from deploy.cli.errors import UsageError
from deploy.cli.nats_context import NatsContext
from deploy.cli.nats_context import read as read_context

DEFAULT_PREFIX = "wattscale"
ENVIRONMENT = "WATTSCALE_NATS_"
IDENTITIES = {"creds": "--creds", "nkey": "--nkey", "user": "--user", "token_file": "--token-file"}
_OPTIONS = (
    ("--context", "NAME", "a context of the nats tool: ~/.config/nats/context/NAME.json"),
    ("--creds", "FILE", "credentials file (JWT)"),
    ("--nkey", "FILE", "nkey seed file"),
    ("--user", "NAME", "user name; its password comes from --password-file, else WATTSCALE_NATS_PASSWORD"),
    ("--password-file", "FILE", "file with the user's password"),
    ("--token-file", "FILE", "file with a token; default: WATTSCALE_NATS_TOKEN"),
    ("--inbox-prefix", "PREFIX", "prefix of the subjects of replies; default: that of the role, which is tried out"),
    ("--tls-ca", "FILE", "certificate authority of the server"),
    ("--tls-cert", "FILE", "client certificate"),
    ("--tls-key", "FILE", "key of the client certificate"),
    ("--tls-hostname", "NAME", "host name in the server's certificate, if it differs from the address"),
)


@dataclass(frozen=True, slots=True)
class BusAddress:
    """Where the bus is, and who we are there. ``site``: of the last `up`, only where this is that run's own bus."""

    servers: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX
    site: str | None = None
    login: dict[str, Any] = field(default_factory=dict)
    """By the names of the options, with ``_`` for ``-``."""
    secrets: tuple[str, str] = field(default=("", ""), repr=False)
    """Password and token of a context."""

    def identity(self) -> str:
        """Who we are there, for messages."""
        for name in IDENTITIES:
            if self.login.get(name):
                return f"{name.replace('_', ' ')} {self.login[name]}"
        if self.login.get("tls_cert"):
            return f"certificate {self.login['tls_cert']}"
        return "this login"


def add_bus_options(parser: argparse.ArgumentParser) -> None:
    """Options that name a bus and a login. Each may also be a variable, such as WATTSCALE_NATS_CREDS."""
    group = parser.add_argument_group("bus (or the environment: WATTSCALE_NATS_URL, WATTSCALE_NATS_USER, ...)")
    group.add_argument("--nats-url", metavar="URL", help="NATS server; default: this user's last `wattscale up`")
    group.add_argument("--prefix", help="first token of all subjects (default: wattscale)")
    for option, metavar, words in _OPTIONS:
        group.add_argument(option, metavar=metavar, help=words)


def address(args: argparse.Namespace) -> BusAddress:
    """Where the arguments, a context or the environment point. Raises UsageError in one line, without secrets."""
    from deploy.demo.last_run import last_known

    given = {option.lstrip("-").replace("-", "_"): getattr(args, _name(option)) for option, _, _ in _OPTIONS}
    environment = {name: os.environ.get(ENVIRONMENT + name.upper()) or None for name in given}
    name = given.pop("context") or environment.pop("context", None)
    environment.pop("context", None)
    context = read_context(name) if name else NatsContext()
    login = _merged(given, _of(context), {} if name else environment)
    # A login that an option replaced takes its secret with it.
    replaced = any(given[kind] for kind in IDENTITIES)
    secrets = ("", "") if replaced else context.secrets
    _check(login, secrets)
    url, prefix = args.nats_url, args.prefix or os.environ.get(ENVIRONMENT + "PREFIX")
    where = servers_of(url) if url else context.servers
    if not where and (url := os.environ.get(ENVIRONMENT + "URL")):
        where = servers_of(url)
    last = last_known()
    found = BusAddress(where, prefix or DEFAULT_PREFIX, None, login, secrets)
    if not where and last is None:
        raise UsageError("no bus is known: start `wattscale up`, or name a server with --nats-url or --context")
    if last is not None and where in ((), (last.nats_url,)):
        return replace(found, servers=(last.nats_url,), prefix=prefix or last.prefix, site=last.site)
    return found


def _name(option: str) -> str:
    return option.lstrip("-").replace("-", "_")


def _of(context: NatsContext) -> dict[str, str | None]:
    names = ("creds", "nkey", "user", "inbox_prefix", "tls_ca", "tls_cert", "tls_key")
    return {name: getattr(context, name) or None for name in names}


def _merged(*sources: dict[str, str | None]) -> dict[str, str | None]:
    """The first value of each name; a login comes whole from the first source that has one."""
    found: dict[str, str | None] = {}
    known = False
    for source in sources:
        kinds = (*IDENTITIES, "password_file")
        found |= {name: value for name, value in source.items() if name not in kinds and not found.get(name)}
        if not known:
            found |= {name: source.get(name) for name in kinds}
            known = any(source.get(name) for name in kinds)
    return found


def _check(login: dict[str, str | None], secrets: tuple[str, str]) -> None:
    kinds = [option for name, option in IDENTITIES.items() if login.get(name)]
    if len(kinds) > 1:
        raise UsageError(f"{' and '.join(kinds)} are two logins: give one of them")
    if login.get("password_file") and not login.get("user"):
        raise UsageError("--password-file is given without --user")
    for one, other in (("tls_cert", "tls_key"), ("tls_key", "tls_cert")):
        if login.get(one) and not login.get(other):
            raise UsageError(f"{_option(one)} is given without {_option(other)}: both belong together")
    known = login.get("password_file") or secrets[0] or os.environ.get(ENVIRONMENT + "PASSWORD")
    if login.get("user") and not known:
        raise UsageError(f"user {login['user']} has no password: set {ENVIRONMENT}PASSWORD, or give --password-file")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def servers_of(url: str) -> tuple[str, ...]:
    """The addresses in a list with commas. Raises UsageError, which never shows a login that is part of an address."""
    found = tuple(part.strip() for part in url.split(",") if part.strip())
    for server in found:
        if "@" in server:
            host = server.rpartition("@")[2]
            raise UsageError(
                f"the address of {host} holds a login: give it with --context, --creds, --nkey, "
                f"or --user and {ENVIRONMENT}PASSWORD"
            )
        try:
            parts = urlsplit(server if "//" in server else f"nats://{server}")
            usable = parts.scheme in ("nats", "tls", "ws", "wss") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise UsageError(f"{server!r} is not the address of a NATS server, such as nats://127.0.0.1:4222")
    if not found:
        raise UsageError("--nats-url names no server, such as nats://127.0.0.1:4222")
    return found
