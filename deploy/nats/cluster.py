"""Configurations of a single server and of a three-server cluster. Pure values; secrets are named, never held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bus_schemas.streams import MAX_CONSUMERS


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a server's TLS. ``verify``: clients must show a certificate of the same authority."""

    cert: str
    key: str
    ca: str
    verify: bool = True

    def conf(self) -> dict[str, Any]:
        """As a server's configuration says it."""
        return {"cert_file": self.cert, "key_file": self.key, "ca_file": self.ca, "verify": self.verify}


def server(
    name: str,
    *,
    store_dir: str,
    listen: str = "0.0.0.0:4222",
    monitor: str = "127.0.0.1:8222",
    tls: Tls | None = None,
    sync_always: bool = True,
    max_consumers: int = MAX_CONSUMERS,
    access: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One server. ``access``: accounts and users, of `roles.accounts`, or those of an operator's JWTs.

    ``sync_always`` because a power cut loses the last seconds of acknowledged messages otherwise (three servers in
    different power zones are the other remedy); it costs nine tenths of the write rate, which is far above the need.
    """
    jetstream: dict[str, Any] = {"store_dir": store_dir, "limits": {"default_max_consumers": max_consumers}}
    if sync_always:
        jetstream["sync_interval"] = "always"
    made: dict[str, Any] = {"server_name": name, "listen": listen, "http": monitor, "jetstream": jetstream}
    if tls is not None:
        made["tls"] = tls.conf()
    return made | dict(access or {})


def clustered(
    settings: Mapping[str, Any], listen: str, routes: Sequence[str], tls: Tls | None = None
) -> dict[str, Any]:
    """A server as a member of a cluster. Streams live on it with three replicas each."""
    cluster: dict[str, Any] = {"name": "wattscale", "listen": listen, "routes": list(routes)}
    if tls is not None:
        cluster["tls"] = tls.conf()
    return {**settings, "cluster": cluster}
