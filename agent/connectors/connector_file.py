"""The settings of the virtual connector as operators write them: names, defaults, and the values that are refused."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from agent.connectors.bus_claims import CLAIM_TTL_S
from agent.runtime.agent_file import HttpPort, HttpSection, SettingsSection
from bus_schemas.jetstream.settings import BusSettings

PASSWORD_ENV = "WATTSCALE_ETCD_PASSWORD"  # noqa: S105  # the name of a variable, not a password


class EtcdSection(SettingsSection):
    """How to reach etcd. A user's password comes from ``password_file``, else from WATTSCALE_ETCD_PASSWORD."""

    endpoints: tuple[str, ...] = Field(default=("http://127.0.0.1:2379",), min_length=1)
    user: str = ""
    password_file: Path | None = None
    tls_ca_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    timeout_s: float = Field(default=5.0, gt=0, le=60)

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
    def _fit_together(self) -> EtcdSection:
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise ValueError("tls_cert_file and tls_key_file belong together")
        if self.password_file and not self.user:
            raise ValueError("password_file is set without user")
        if self.tls_ca_file and not all(one.startswith("https://") for one in self.endpoints):
            raise ValueError("tls_ca_file is set, but an address begins with http://")
        return self

    def tls(self) -> ssl.SSLContext | None:
        """The TLS settings; None: the system's. Raises OSError (ssl.SSLError is one) for files that cannot be used."""
        if self.tls_ca_file is None and self.tls_cert_file is None:
            return None
        made = ssl.create_default_context(cafile=self.tls_ca_file)
        if self.tls_cert_file is not None:
            made.load_cert_chain(self.tls_cert_file, self.tls_key_file)
        return made


ClaimTtl = Annotated[float, Field(ge=1, le=60)]
"""How long the claim of a connector that was killed stands: another one takes over after it."""


class ConnectorHttpSection(HttpSection):
    """The agent's pages on another port: both may run on one host."""

    port: HttpPort = 9102


class ConnectorFile(SettingsSection):
    """All settings of ``wattscale connector virtual``."""

    deployment: str = Field(min_length=1)
    namespace: str = Field(default="", pattern=r"^[^/\s]*$")
    """Dynamo's namespace, where it is not the deployment's name."""
    direction: Literal["to-dynamo", "from-dynamo"] = "to-dynamo"
    """Whether our decisions go to Dynamo's clients, or a Dynamo planner's decisions become pins on our bus."""
    name: str = ""
    """What acknowledgements call this connector; empty: ``virtual on <host>``."""
    nats: BusSettings = BusSettings()
    etcd: EtcdSection = EtcdSection()
    claim_ttl_s: ClaimTtl = CLAIM_TTL_S
    http: ConnectorHttpSection = ConnectorHttpSection()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _used(self) -> ConnectorFile:
        if self.direction == "from-dynamo" and "claim_ttl_s" in self.model_fields_set:
            raise ValueError("claim_ttl_s: from-dynamo claims the namespace in etcd alone: leave it out")
        return self

    @property
    def served_namespace(self) -> str:
        """The namespace below which the keys are."""
        return self.namespace or self.deployment
