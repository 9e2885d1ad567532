"""The settings of the Kubernetes connector as operators write them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from agent.connectors.connector_file import ConnectorHttpSection
from agent.core.scaling.kubernetes.pool_views import ViewSettings
from agent.core.scaling.kubernetes.scale_targets import ScaleTarget, target_of
from agent.runtime.agent_file import SettingsSection
from bus_schemas.jetstream.settings import BusSettings


class KubernetesFile(SettingsSection):
    """All settings of ``wattscale connector kubernetes``: one deployment, by its graph or by named targets."""

    deployment: str = Field(min_length=1)
    namespace: str = Field(min_length=1)
    """Of Kubernetes, where the targets are."""
    graph: str = ""
    """A DynamoGraphDeployment: each of its scaling adapters is a pool, named as the component in lower case."""
    targets: dict[str, str] = Field(default_factory=dict)
    """By pool, RESOURCE.VERSION.GROUP/NAME, instead of ``graph``."""
    second_writer: Literal["wins", "loses"] = "wins"
    """Whether a count that somebody else wrote stays, or is written over."""
    wait_for_capacity_s: float = Field(default=600.0, gt=0)
    """How long pods may stay unschedulable before the decision fails for good."""
    kubeconfig: Path | None = None
    name: str = ""
    """What acknowledgements call this connector; empty: ``kubernetes on <host>``."""
    nats: BusSettings = BusSettings()
    http: ConnectorHttpSection = ConnectorHttpSection()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _one_kind(self) -> KubernetesFile:
        if bool(self.graph) == bool(self.targets):
            raise ValueError("set either graph or targets")
        found = self.scale_targets()
        if len(set(found.values())) < len(found):
            raise ValueError("targets: one object is the target of two pools")
        return self

    def scale_targets(self) -> dict[str, ScaleTarget]:
        """By pool. Raises BadTargetError, a ValueError."""
        return {pool: target_of(text, self.namespace) for pool, text in self.targets.items()}

    def view_settings(self) -> ViewSettings:
        """What the views of pools need."""
        return ViewSettings(self.wait_for_capacity_s, overwrite=self.second_writer == "loses")
