"""The settings of the virtual connector as operators write them: names, defaults, and the values that are refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from agent.connectors.bus_claims import CLAIM_TTL_S
from agent.connectors.virtual.store_file import EtcdSection, RedisSection
from agent.runtime.agent_file import HttpPort, HttpSection, SettingsSection
from bus_schemas.jetstream.settings import BusSettings

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
    store: Literal["etcd", "redis"] = "etcd"
    """Where Dynamo's side reads decisions. redis: the hash of its proposed connector, which has no ids."""
    model: str = Field(default="", pattern=r"^[^{}\s]*$")
    """With ``store: redis``: the model's name in the key of the hash, in its own capitals."""
    name: str = ""
    """What acknowledgements call this connector; empty: ``virtual on <host>``."""
    nats: BusSettings = BusSettings()
    etcd: EtcdSection = EtcdSection()
    redis: RedisSection = RedisSection()
    claim_ttl_s: ClaimTtl = CLAIM_TTL_S
    http: ConnectorHttpSection = ConnectorHttpSection()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _used(self) -> ConnectorFile:
        other = {"etcd": ("redis", "model"), "redis": ("etcd",)}[self.store]
        if unused := [name for name in other if name in self.model_fields_set]:
            raise ValueError(f"{unused[0]} has no effect with store: {self.store}: leave it out")
        if self.store == "redis":
            if self.direction == "from-dynamo":
                raise ValueError("direction: from-dynamo needs etcd: the hash in Redis has no ids of decisions")
            if not self.model:
                raise ValueError("model: name the model that is in the key of the hash in Redis")
            if set("{}") & set(self.served_namespace):
                raise ValueError(
                    f"namespace: {self.served_namespace!r} has a brace, which the key in Redis cannot hold"
                )
        if self.direction == "from-dynamo" and "claim_ttl_s" in self.model_fields_set:
            raise ValueError("claim_ttl_s: from-dynamo claims the namespace in etcd alone: leave it out")
        return self

    @property
    def served_namespace(self) -> str:
        """The namespace below which the keys are."""
        return self.namespace or self.deployment
