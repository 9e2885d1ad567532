"""How a process reaches the bus. Secrets come from files or the environment and are never printed."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class BusSettings(BaseModel):
    """One connection. At most one way to say who we are: credentials file, nkey, user and password, or token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    servers: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    prefix: str = "wattscale"
    name: str = "wattscale"
    creds_file: Path | None = None
    nkey_seed_file: Path | None = None
    user: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    connect_timeout_s: float = Field(default=5.0, gt=0)
    request_timeout_s: float = Field(default=5.0, gt=0)
    replicas: int = Field(default=1, ge=1, le=5)
