"""Settings of a connection to the bus. Secrets come from files or the environment and are never printed."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PASSWORD_ENV = "WATTSCALE_NATS_PASSWORD"  # noqa: S105  # the name of a variable, not a password
TOKEN_ENV = "WATTSCALE_NATS_TOKEN"  # noqa: S105  # likewise
LONGEST_S = 3600.0
INBOX_PREFIX = r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$"


class BusSettings(BaseModel):
    """One connection. At most one kind of credentials: credentials file, nkey, user and password, or token.

    A user's password comes from ``password_file``, else from the environment (WATTSCALE_NATS_PASSWORD); a token from
    ``token_file``, else WATTSCALE_NATS_TOKEN. Files are read again at each reconnect, so that they can be rotated.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    servers: tuple[str, ...] = Field(default=("nats://127.0.0.1:4222",), min_length=1)
    prefix: str = "wattscale"
    name: str = Field(default="wattscale", min_length=1)
    inbox_prefix: str = Field(default="_INBOX", pattern=INBOX_PREFIX)
    """Prefix of the subjects on which replies arrive. Roles that may read only their own replies need their own."""
    creds_file: Path | None = None
    nkey_seed_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    tls_hostname: str | None = None
    """The host name in the server's certificate, where it differs from the one in the address."""
    connect_timeout_s: float = Field(default=5.0, gt=0, le=LONGEST_S)
    request_timeout_s: float = Field(default=5.0, gt=0, le=LONGEST_S)
    no_service_wait_s: float = Field(default=0.0, ge=0, le=LONGEST_S)
    """How long requests that nothing serves are sent again, counted from the connection's first one: in a cluster, a
    stream that was just made, or whose leader just ended, answers a moment later. For commands, which ask only once."""
    reconnect_first_s: float = Field(default=0.05, gt=0, le=LONGEST_S)
    reconnect_last_s: float = Field(default=2.0, gt=0, le=LONGEST_S)
    """Pauses between attempts to reconnect grow from the first to the last value, with jitter; attempts never end."""
    replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream that this process creates: 3 in a cluster."""

    @field_validator("servers")
    @classmethod
    def _no_secrets(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        for server in servers:
            # Not by the parts of the address: an address that cannot be taken apart may still hold a password.
            if "@" in server:
                host = server.rpartition("@")[2]
                raise ValueError(f"the address of {host} holds credentials: use a file or the environment")
        return servers

    @model_validator(mode="after")
    def _one_identity(self) -> Self:
        kinds = {
            "creds_file": self.creds_file,
            "nkey_seed_file": self.nkey_seed_file,
            "user": self.user,
            "token_file": self.token_file,
        }
        given = [name for name, value in kinds.items() if value]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both set: use one kind of credentials")
        if self.password_file and not self.user:
            raise ValueError("password_file is set without user")
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("tls_cert_file and tls_key_file belong together")
        return self
