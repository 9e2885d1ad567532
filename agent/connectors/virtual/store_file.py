"""How operators write where etcd and Redis are, and what of it is refused."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, field_validator, model_validator

from agent.connectors.virtual.dynamo_hash import DEFAULT_PREFIX
from agent.runtime.agent_file import SettingsSection

PASSWORD_ENV = "WATTSCALE_ETCD_PASSWORD"  # noqa: S105  # the name of a variable, not a password
REDIS_PASSWORD_ENV = "WATTSCALE_REDIS_PASSWORD"  # noqa: S105  # likewise
REDIS_PORT = 6379


class StoreSection(SettingsSection):
    """What etcd and Redis have in common."""

    user: str = ""
    password_file: Path | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    timeout_s: float = Field(default=5.0, gt=0, le=60)

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("tls_cert_file and tls_key_file belong together")
        return self

    def tls(self) -> ssl.SSLContext | None:
        """The TLS settings; None: the system's. Raises OSError (ssl.SSLError is one) for files that cannot be used."""
        if self.tls_ca_file is None and self.tls_cert_file is None:
            return None
        made = ssl.create_default_context(cafile=self.tls_ca_file)
        if self.tls_cert_file is not None:
            made.load_cert_chain(self.tls_cert_file, self.tls_key_file)
        return made


class EtcdSection(StoreSection):
    """How to reach etcd. A user's password comes from ``password_file``, else from WATTSCALE_ETCD_PASSWORD."""

    endpoints: tuple[str, ...] = Field(default=("http://127.0.0.1:2379",), min_length=1)

    @field_validator("endpoints")
    @classmethod
    def _addresses(cls, endpoints: tuple[str, ...]) -> tuple[str, ...]:
        for endpoint in endpoints:
            if "@" in endpoint:
                host = endpoint.rpartition("@")[2]
                raise ValueError(f"the address of {host} holds credentials: use user and password_file")
            if not endpoint.startswith(("http://", "https://")):
                raise ValueError(f"{endpoint}: an address begins with http:// or https://")
        return endpoints

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.password_file and not self.user:
            raise ValueError("password_file is set without user")
        if self.tls_ca_file and not all(one.startswith("https://") for one in self.endpoints):
            raise ValueError("tls_ca_file is set, but an address begins with http://")
        return self


class RedisSection(StoreSection):
    """How to reach Redis. A password comes from ``password_file``, else from WATTSCALE_REDIS_PASSWORD; without ``user``
    it is the default user's (``requirepass``)."""

    url: str = f"redis://127.0.0.1:{REDIS_PORT}"
    """``redis://HOST:PORT/DATABASE``, or ``rediss://`` with TLS."""
    key_prefix: str = Field(default=DEFAULT_PREFIX, min_length=1, pattern=r"^[^{}\s]*$")

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if "@" in url:
            raise ValueError(f"the address of {url.rpartition('@')[2]} holds credentials: use user and password_file")
        parts = urlsplit(url)
        database = parts.path.strip("/")
        if parts.scheme not in ("redis", "rediss") or parts.query or (database and not database.isdecimal()):
            raise ValueError(f"{url}: an address is redis://HOST:PORT/DATABASE, or rediss:// with TLS")
        if not parts.hostname or (parts.port is not None and parts.port == 0):
            raise ValueError(f"{url}: an address names a host, and a port above 0")
        return url

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.tls_ca_file or self.tls_cert_file) and self.address.scheme != "rediss":
            raise ValueError("files for TLS are set, but the address begins with redis://")
        return self

    @property
    def address(self) -> SplitResult:
        """The parts of the address."""
        return urlsplit(self.url)

    @property
    def database(self) -> int:
        """The number of the database."""
        return int(self.address.path.strip("/") or 0)
