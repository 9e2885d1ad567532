"""Reads the contexts of the `nats` command line tool: ``~/.config/nats/context/NAME.json``, as that tool writes them.

Contexts whose secrets another program keeps (``nsc://``, ``op://``), and settings that would change where messages go,
are refused by name. Must never put a secret into an error.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bus_schemas.regular_files import SECRET_BYTES, read_regular
from deploy.cli.errors import UsageError
from deploy.cli.nearest import hint

_READ = {"creds", "nkey", "cert", "key", "ca", "user", "password", "token", "url", "inbox_prefix"}
_REFUSED = ("nsc", "user_jwt", "user_seed", "socks_proxy", "jetstream_domain", "jetstream_api_prefix", "tls_first")
_KEEPERS = ("nsc://", "op://")


@dataclass(frozen=True, slots=True)
class NatsContext:
    """One context. Empty: not given. Its secrets are not part of the representation."""

    servers: tuple[str, ...] = ()
    creds: str = ""
    nkey: str = ""
    user: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    inbox_prefix: str = ""
    secrets: tuple[str, str] = ("", "")
    """Password and token."""

    def __repr__(self) -> str:
        return f"NatsContext({', '.join(self.servers)})"


def folder() -> Path:
    """Where the contexts are."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "nats" / "context"


def read(name: str) -> NatsContext:
    """The context of that name. Raises UsageError in one line, without secrets."""
    known = sorted(path.stem for path in folder().glob("*.json"))
    if name not in known:
        raise UsageError(f"no context {name!r} in {folder()}: {hint(name, known)}")
    path = folder() / f"{name}.json"
    try:
        values = json.loads(read_regular(path, SECRET_BYTES))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise UsageError(f"context {name}: {path} cannot be read: {why}") from None
    if not isinstance(values, dict) or not all(isinstance(values.get(key, ""), str) for key in _READ):
        raise UsageError(f"context {name}: {path} is not a context of the nats tool")
    _refuse_foreign(name, values)
    return _context(name, {key: values.get(key) or "" for key in _READ})


def _refuse_foreign(name: str, values: dict[str, object]) -> None:
    for key, value in values.items():
        for keeper in _KEEPERS:
            if isinstance(value, str) and value.startswith(keeper):
                raise UsageError(f"context {name}: its {key} is kept by {keeper}, which is not read here: use --creds")
    for key in _REFUSED:
        if values.get(key):
            raise UsageError(f"context {name}: {key} is not supported; use --creds, --nkey or --user instead")


def _context(name: str, values: dict[str, str]) -> NatsContext:
    servers, user, password, token = [], values["user"], values["password"], values["token"]
    for address in filter(None, (part.strip() for part in values["url"].split(","))):
        # The nats tool accepts a login in the address; ours never carry one.
        scheme, _, rest = address.rpartition("//")
        login, _, host = rest.rpartition("@")
        if login and not (user or token):
            first, colon, second = login.partition(":")
            user, password, token = (unquote(first), unquote(second), "") if colon else ("", "", unquote(first))
        servers.append(f"{scheme or 'nats:'}//{host}")
    for server in servers:
        try:
            urlsplit(server)
        except ValueError:
            raise UsageError(f"context {name}: its url is not an address") from None
    files = {key: str(Path(values[key]).expanduser()) if values[key] else "" for key in ("creds", "nkey", "ca", "cert")}
    return NatsContext(
        servers=tuple(servers),
        creds=files["creds"],
        nkey=files["nkey"],
        user=user,
        tls_ca=files["ca"],
        tls_cert=files["cert"],
        tls_key=str(Path(values["key"]).expanduser()) if values["key"] else "",
        inbox_prefix=values["inbox_prefix"],
        secrets=(password, token),
    )
