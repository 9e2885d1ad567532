"""Configurations of a single server and of a three-server cluster. Pure values without secrets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bus_schemas.streams import MAX_CONSUMERS


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a server's TLS. ``verify``: clients must present a certificate of the same authority."""

    cert: str
    key: str
    ca: str
    verify: bool = True

    def conf(self) -> dict[str, Any]:
        """As a section of a server's configuration."""
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
    """The configuration of one server. ``access``: accounts and users from `roles.accounts`, or of an operator's JWTs.

    ``sync_always``: without it a power cut loses the acknowledged messages of the last seconds (three servers in
    different power zones are the other remedy). It costs nine tenths of the write rate; what is left is ample.
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
    """The configuration of a member of a cluster, on which each stream has three replicas."""
    cluster: dict[str, Any] = {"name": "wattscale", "listen": listen, "routes": list(routes)}
    if tls is not None:
        cluster["tls"] = tls.conf()
    return {**settings, "cluster": cluster}
