"""The settings of the Kubernetes connector as operators write them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from agent.connectors.bus_claims import CLAIM_TTL_S
from agent.connectors.connector_file import ClaimTtl, ConnectorHttpSection
from agent.connectors.kubernetes.shared_watches import WatchedPools
from agent.core.scaling.claims import shared_targets
from agent.core.scaling.kubernetes.pool_views import ViewSettings
from agent.core.scaling.kubernetes.scale_targets import target_of
from agent.runtime.agent_file import SettingsSection
from bus_schemas.jetstream.settings import BusSettings


class DeploymentSection(SettingsSection):
    """One deployment's pools: those of a graph, or named targets."""

    namespace: str = ""
    """Of Kubernetes; empty: the connector's."""
    graph: str = ""
    targets: dict[str, str] = Field(default_factory=dict)


class KubernetesFile(SettingsSection):
    """All settings of ``wattscale connector kubernetes``: one deployment, or several in ``deployments``."""

    deployment: str = ""
    namespace: str = ""
    """Of Kubernetes, where the targets are."""
    graph: str = ""
    """A DynamoGraphDeployment: each of its scaling adapters is a pool, named as the component in lower case."""
    targets: dict[str, str] = Field(default_factory=dict)
    """By pool, RESOURCE.VERSION.GROUP/NAME, instead of ``graph``."""
    deployments: dict[str, DeploymentSection] = Field(default_factory=dict)
    """By name, instead of ``deployment``, ``graph`` and ``targets``: all of them by this process."""
    second_writer: Literal["wins", "loses"] = "wins"
    """Whether a count that somebody else wrote stays, or is written over."""
    wait_for_capacity_s: float = Field(default=600.0, gt=0)
    """How long pods may stay unschedulable before the decision fails for good."""
    annotate: bool = False
    """Whether each worker pod gets its planned power limit as an annotation, for an agent that reads it there."""
    annotate_settle_s: float = Field(default=20.0, ge=0)
    """How long every lower was written before one is raised: longer than the loop of the agent that reads them."""
    restart_graphs: bool = False
    """Whether restart commands are carried out on the graph."""
    kubeconfig: Path | None = None
    name: str = ""
    """What acknowledgements call this connector; empty: ``kubernetes on <host>``."""
    cluster: str = ""
    """Tells clusters apart that share a bus and whose objects have equal names; empty: the API server's address."""
    claim_ttl_s: ClaimTtl = CLAIM_TTL_S
    nats: BusSettings = BusSettings()
    http: ConnectorHttpSection = ConnectorHttpSection()
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @model_validator(mode="after")
    def _fit_together(self) -> KubernetesFile:
        if self.deployments and (self.deployment or self.graph or self.targets):
            raise ValueError("set either deployments, or deployment with graph or targets")
        if not self.deployments and not self.deployment:
            raise ValueError("deployment: is needed, or deployments")
        for name, one in self._sections().items():
            if bool(one.graph) == bool(one.targets):
                raise ValueError(f"{name}: set either graph or targets")
            if not one.namespace:
                raise ValueError(f"{name}: namespace is needed: that of Kubernetes, where its targets are")
        if twice := shared_targets(self.claimed_targets()):
            raise ValueError("; ".join(twice))
        return self

    def claimed_targets(self, address: str = "") -> dict[str, dict[str, str]]:
        """By deployment and pool, the name of its target. ``address``: the API server's, for clusters without a name.

        A graph's adapters are not known yet: the graph stands for them.
        """
        cluster = self.cluster or address
        of = f" of {cluster}" if cluster else ""
        claims: dict[str, dict[str, str]] = {}
        for found in self.watched():
            graph = {"*": f"graph {found.graph} in {found.namespace}{of}"} if found.graph else {}
            pools = {pool: f"{target}{of}" for pool, target in found.targets.items()}
            claims[found.deployment] = graph | pools
        return claims

    def _sections(self) -> dict[str, DeploymentSection]:
        given = self.deployments or {self.deployment: DeploymentSection(graph=self.graph, targets=self.targets)}
        return {
            name: one.model_copy(update={"namespace": one.namespace or self.namespace}) for name, one in given.items()
        }

    def watched(self) -> tuple[WatchedPools, ...]:
        """The pools of each deployment. Raises BadTargetError, a ValueError."""
        return tuple(
            WatchedPools(
                name,
                one.namespace,
                one.graph,
                {pool: target_of(text, one.namespace) for pool, text in one.targets.items()},
            )
            for name, one in self._sections().items()
        )

    def view_settings(self) -> ViewSettings:
        """What the views of pools need."""
        return ViewSettings(self.wait_for_capacity_s, overwrite=self.second_writer == "loses")
