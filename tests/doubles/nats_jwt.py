"""Credentials as JWTs, for servers in operator mode: the same roles and accounts, signed instead of configured.

For a site without tools of its own. Whoever has the operator's seed can make any credential: keep it off the bus's
machines. Needs the extra ``wattscale[nkeys]``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bus_schemas.subjects import Subjects
from deploy.nats.roles import (
    BUS_ACCOUNT,
    FIELD_ACCOUNT,
    SYSTEM_ACCOUNT,
    VIEW_ACCOUNT,
    Permissions,
    Services,
    field_services,
    view_services,
)

UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class Key:
    """A signing key. The seed is a secret and is never part of the text of this value."""

    seed: bytes
    public: str

    def __repr__(self) -> str:
        return f"Key({self.public})"

    @classmethod
    def new(cls, kind: str) -> Key:
        """A fresh key of an ``operator``, ``account`` or ``user``."""
        import nkeys

        prefix = {
            "operator": nkeys.PREFIX_BYTE_OPERATOR,
            "account": nkeys.PREFIX_BYTE_ACCOUNT,
            "user": nkeys.PREFIX_BYTE_USER,
        }[kind]
        seed = bytes(nkeys.encode_seed(os.urandom(32), prefix))
        return cls(seed, nkeys.from_seed(bytearray(seed)).public_key.decode())


def _token(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(
    key: Key, subject: str, name: str, kind: str, claims: Mapping[str, Any], expires_s: float | None = None
) -> str:
    """A JWT of NATS's version 2. ``expires_s``: seconds of UTC, None for never."""
    import nkeys

    body: dict[str, Any] = {
        "iat": int(time.time()),
        "iss": key.public,
        "name": name,
        "sub": subject,
        "nats": {**claims, "type": kind, "version": 2},
    }
    if expires_s is not None:
        body["exp"] = int(expires_s)
    body["jti"] = base64.b32encode(hashlib.sha256(json.dumps(body).encode()).digest()).rstrip(b"=").decode()
    head = _token(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}).encode())
    text = f"{head}.{_token(json.dumps(body).encode())}"
    signature = nkeys.from_seed(bytearray(key.seed)).sign(text.encode())
    return f"{text}.{_token(signature)}"


class JwtOperator:
    """An operator with the bus's accounts. ``conf`` goes to the servers, ``credentials`` to one user each."""

    def __init__(self, subjects: Subjects) -> None:
        self._operator = Key.new("operator")
        self._accounts = {
            name: Key.new("account") for name in (BUS_ACCOUNT, FIELD_ACCOUNT, VIEW_ACCOUNT, SYSTEM_ACCOUNT)
        }
        self._offered = {FIELD_ACCOUNT: field_services(subjects), VIEW_ACCOUNT: view_services(subjects)}

    def conf(self) -> dict[str, Any]:
        """The server's settings: operator, system account, and the accounts' own JWTs. Holds no secret."""
        system = self._accounts[SYSTEM_ACCOUNT].public
        operator = sign(self._operator, self._operator.public, "wattscale", "operator", {"system_account": system})
        return {
            "operator": operator,
            "system_account": system,
            "resolver": "MEMORY",
            "resolver_preload": {key.public: self._account(name) for name, key in self._accounts.items()},
        }

    def credentials(
        self, account: str, name: str, permissions: Permissions | None = None, expires_s: float | None = None
    ) -> str:
        """A credentials file for one user of an account."""
        user = Key.new("user")
        claims: dict[str, Any] = {"subs": UNLIMITED, "data": UNLIMITED, "payload": UNLIMITED}
        if permissions is not None:
            claims["pub"] = {"allow": list(permissions.publish)}
            claims["sub"] = {"allow": list(permissions.subscribe)}
        jwt = sign(self._accounts[account], user.public, name, "user", claims, expires_s)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )

    def _account(self, name: str) -> str:
        names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
        limits: dict[str, Any] = dict.fromkeys(names, UNLIMITED) | {"wildcards": True}
        if name == BUS_ACCOUNT:
            limits |= dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), UNLIMITED)
        claims: dict[str, Any] = {"limits": limits, "default_permissions": {"pub": {}, "sub": {}}}
        if name == BUS_ACCOUNT:
            claims["exports"] = _exports(self._offered)
        elif name in self._offered:
            claims["imports"] = _imports(self._offered[name], self._accounts[BUS_ACCOUNT].public)
        return sign(self._operator, self._accounts[name].public, name, "account", claims)


def _exports(offered: Mapping[str, Services]) -> list[dict[str, Any]]:
    """Open within this operator, whose accounts are these four only."""
    made: dict[tuple[str, str], dict[str, Any]] = {}
    for services in offered.values():
        for subject in services.single:
            made["service", subject] = {"type": "service", "response_type": "Singleton"}
        for subject in services.many:
            made["service", subject] = {"type": "service", "response_type": "Stream"}
        for subject in services.subscribed:
            made["stream", subject] = {"type": "stream"}
    # A JWT may not export a subject twice, also not within a wider one.
    return [
        {"name": subject, "subject": subject, **rest}
        for (kind, subject), rest in made.items()
        if not any(kind == other and subject != wider and _covers(wider, subject) for other, wider in made)
    ]


def _covers(wider: str, subject: str) -> bool:
    """Whether all that ``subject`` matches is matched by ``wider`` too."""
    ours, theirs = wider.split("."), subject.split(".")
    for position, part in enumerate(ours):
        if part == ">":
            return len(theirs) > position
        if position >= len(theirs) or (part != theirs[position] and (part != "*" or theirs[position] == ">")):
            return False
    return len(ours) == len(theirs)


def _imports(services: Services, bus: str) -> list[dict[str, Any]]:
    asked = [(subject, "service") for subject in (*services.single, *services.many)]
    return [
        {"name": subject, "subject": subject, "account": bus, "type": kind}
        for subject, kind in asked + [(subject, "stream") for subject in services.subscribed]
    ]
