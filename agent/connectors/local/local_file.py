"""The settings of `wattscale connector local` as operators write them. Times in seconds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from agent.connectors.bus_claims import CLAIM_TTL_S
from agent.connectors.connector_file import ClaimTtl, ConnectorHttpSection
from agent.core.scaling.worker_lifecycle import PoolRules
from agent.runtime.agent_file import SettingsSection
from bus_schemas.jetstream.settings import BusSettings

LONGEST_S = 86_400.0
PLACEHOLDERS = ("port", "worker", "pool", "gpus", "model")
UrlPath = Annotated[str, Field(pattern=r"^/\S*$")]


class LocalPool(SettingsSection):
    """One pool's workers: how they are started, when they are ready, how they leave."""

    role: Literal["prefill", "decode", "aggregated"] | None = None
    """Default: the pool's name."""
    command: tuple[str, ...] = Field(min_length=1)
    """Program and arguments. ``{port}``, ``{worker}``, ``{pool}``, ``{gpus}`` and ``{model}`` are replaced."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables for the worker, with the same placeholders. It also gets the connector's, but none of Wattscale's."""
    folder: Path | None = None
    """Where the command runs; default: where the connector does."""
    gpus_per_replica: int = Field(default=1, ge=0, le=64)
    health_path: UrlPath = "/health"
    """Answers 200 while the worker serves."""
    drain_path: UrlPath | None = None
    """A POST there makes the worker take no new request, finish those it has, and end. Without it a SIGTERM does."""
    startup_timeout_s: float = Field(default=600.0, gt=0, le=LONGEST_S)
    drain_s: float = Field(default=30.0, ge=0, le=LONGEST_S)
    """How long a worker may take to finish its requests before it is killed."""

    @field_validator("command", "environment")
    @classmethod
    def _known_placeholders(cls, value: tuple[str, ...] | dict[str, str]) -> tuple[str, ...] | dict[str, str]:
        for text in value.values() if isinstance(value, dict) else value:
            for name in re.findall(r"\{([a-z_]+)\}", text):
                if name not in PLACEHOLDERS:
                    known = ", ".join(f"{{{one}}}" for one in PLACEHOLDERS)
                    raise ValueError(f"{{{name}}} stands for nothing; known are {known}")
        return value

    def rules(self) -> PoolRules:
        """The same for the core."""
        return PoolRules(self.gpus_per_replica, self.startup_timeout_s, self.drain_s)


class LocalConnectorFile(SettingsSection):
    """All settings of ``wattscale connector local``."""

    deployment: str = Field(min_length=1)
    model: str = ""
    name: str = ""
    """What acknowledgements call this connector; empty: ``local on <host>``."""
    nats: BusSettings
    claim_ttl_s: ClaimTtl = CLAIM_TTL_S
    http: ConnectorHttpSection = ConnectorHttpSection()
    state_folder: Path
    """What was started, and the workers' logs. One connector at a time; not shared between machines."""
    pools: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], LocalPool] = Field(min_length=1)
    gpus: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """The GPUs that workers may get, as ``CUDA_VISIBLE_DEVICES`` names them; UUIDs where a planner reserves them."""
    first_port: int = Field(default=9400, ge=1024, le=65_535)
    ports: int = Field(default=200, ge=1, le=10_000)
    """How many ports from ``first_port`` on workers may get."""
    interval_s: float = Field(default=0.25, gt=0, le=60)
    """How often the workers are checked."""
    on_exit: Literal["keep", "drain"] = "keep"
    """What an orderly stop does with the workers: leave them for the next connector, or drain them all."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _fit_together(self) -> LocalConnectorFile:
        for name, pool in self.pools.items():
            if pool.role is None and name not in ("prefill", "decode", "aggregated"):
                raise ValueError(f"pools.{name}: its name is not a role; set role: prefill, decode or aggregated")
            if pool.gpus_per_replica > len(self.gpus):
                raise ValueError(
                    f"pools.{name}: a worker takes {pool.gpus_per_replica} GPUs; gpus names {len(self.gpus)}"
                )
            if not any("{port}" in text for text in (*pool.command, *pool.environment.values())):
                raise ValueError(
                    f"pools.{name}: neither command nor environment has {{port}}, so no worker gets its own"
                )
        if len(set(self.gpus)) < len(self.gpus):
            raise ValueError("gpus: a GPU is named twice")
        if self.first_port + self.ports > 65_536:
            raise ValueError(f"first_port and ports: {self.first_port} and {self.ports} go beyond port 65535")
        return self

    def role_of(self, pool: str) -> str:
        """The role of a pool's workers."""
        return self.pools[pool].role or pool
