"""The facts that `wattscale verify` judges. Values only: a test builds them without any process.

A fact that could not be gathered is ``Unknown`` with the reason, which becomes a skipped line and never a failed one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent.core.scaling.kubernetes.needed_rights import Right
from agent.runtime.preflight import Finding
from bus_schemas.jetstream.stream_admin import StreamChange
from deploy.views.site_view import SiteView
from planner.adapters.metrics.engine_metrics import NAMESPACE_LABEL
from planner.adapters.metrics.series_selector import SeriesSelector, same_namespace
from planner.domain.config import PlannerConfig

NODE_TERM_S = 15.0
"""Without a report for this long a node is silent, where the site's settings (``stale_s``) are not known."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that could not be gathered. ``why``: half a sentence."""

    why: str


@dataclass(frozen=True, slots=True)
class OldServer(Unknown):
    """A server answered that is too old. ``why`` says both: the ``cause``, with its version, and the ``remedy``."""

    cause: str
    remedy: str


@dataclass(frozen=True, slots=True)
class NewestReport:
    """A sender's newest message, as the server stored it."""

    age_s: float
    """Since it was stored, by the server's clock alone."""
    ahead_s: float
    """How far the sender's clock is ahead of the server's; the time on the way makes it smaller."""


@dataclass(frozen=True, slots=True)
class ConsumerUse:
    """How a deployment's consumer is used now."""

    waiting: int
    """Requests for the next decision that are open."""
    delivered: int
    """Messages that it has delivered since it was created."""
    unanswered: int
    """Messages that were delivered and not acknowledged yet."""


@dataclass(frozen=True, slots=True)
class BusFacts:
    """What the bus shows. Every part stands alone: a lost stream makes the parts Unknown that are read from it."""

    servers: str
    version: str = ""
    """Of the server."""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    """By the server's clock."""
    own_ahead_s: float | Unknown = 0.0
    """How far this machine's clock is ahead of the server's."""
    changes: tuple[StreamChange, ...] | Unknown = ()
    """What `wattscale streams apply` would change."""
    missing: str = ""
    """What is missing of the streams and what to do, where ``changes`` is Unknown."""
    forgets: str | Unknown = ""
    """Why a silent node's last decision may be lost; empty where it cannot."""
    put_back: tuple[str, ...] | Unknown = ()
    """Signs that the streams are an older copy."""
    view: SiteView = field(default_factory=SiteView)
    unread: Mapping[str, str] = field(default_factory=dict)
    """Kinds of messages that could not be read, such as ``telemetry.node``, and why."""
    nodes: Mapping[str, NewestReport] = field(default_factory=dict)
    """By node, from its telemetry; its acknowledgement where there is none."""
    planners: Mapping[str, NewestReport] = field(default_factory=dict)
    """By deployment, from the newest plan record."""
    connectors: Mapping[str, NewestReport] = field(default_factory=dict)
    """By deployment, from the newest acknowledgement."""
    boots: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By node, the starts of agents that reported within the last seconds, oldest report first."""
    removed: frozenset[str] = frozenset()
    """Nodes that an operator declared gone."""
    consumers: Mapping[str, ConsumerUse | None] | Unknown = field(default_factory=dict)
    """By deployment; None where it has no consumer."""


@dataclass(frozen=True, slots=True)
class SettingsFacts:
    """The planner's settings, where they were given. ``problems``: why they cannot be used, one line each."""

    problems: tuple[str, ...] = ()
    config: PlannerConfig | None = None
    models: Mapping[str, str] = field(default_factory=dict)
    """By deployment, the model that is set, or that its graph serves; empty where neither is known."""
    detected: frozenset[str] = frozenset()
    """Deployments whose model was read from their graph."""


@dataclass(frozen=True, slots=True)
class SeriesGroup:
    """Series of the metric ``name`` that have these labels: namespace, component and model, as far as they have them.

    ``model_label``: the label in which this metric's exporter has the model.
    """

    name: str
    labels: Mapping[str, str]
    model_label: str
    series: int = 1

    def has_model(self, selector: SeriesSelector) -> bool:
        """Whether a query for the deployment takes them by their model."""
        return not selector.model or self.labels.get(self.model_label, "").casefold() == selector.model.casefold()

    def has_namespace(self, selector: SeriesSelector) -> bool:
        """Whether a query for the deployment takes them by their namespace."""
        own = self.labels.get(NAMESPACE_LABEL, "")
        return not selector.namespace or same_namespace(own, selector.namespace)


@dataclass(frozen=True, slots=True)
class MetricFacts:
    """What Prometheus shows of the deployments that are read from it."""

    url: str
    trouble: str = ""
    """Why it cannot be asked; empty where it answers."""
    series: tuple[SeriesGroup, ...] = ()
    selectors: Mapping[str, SeriesSelector] = field(default_factory=dict)
    """By deployment."""
    ages_s: Mapping[str, float] = field(default_factory=dict)
    """By deployment, how long ago its newest sample was scraped."""
    stale_s: Mapping[str, float] = field(default_factory=dict)
    """By deployment, the age at which a sample is no reading any more."""


@dataclass(frozen=True, slots=True)
class AnnotatedPod:
    """A pod with a power limit by annotation. ``watts`` is None where it is not a number, and ``problem`` says so."""

    pod: str
    watts: int | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """What the Kubernetes API shows."""

    gpu_nodes: tuple[str, ...] | Unknown = ()
    pods: tuple[AnnotatedPod, ...] | Unknown = ()


@dataclass(frozen=True, slots=True)
class RightsFacts:
    """Rights of the connector and of the agent, asked with their own accounts."""

    asked: int = 0
    missing: tuple[Right, ...] = ()
    findings: tuple[Finding, ...] = ()
    """Of the agent's own check of its access."""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is judged."""

    bus: BusFacts | Unknown
    settings: SettingsFacts | Unknown = Unknown("no planner settings are given (-c FILE)")
    metrics: MetricFacts | Unknown = Unknown("no planner settings are given (-c FILE)")
    cluster: ClusterFacts | Unknown = Unknown("no Kubernetes API is at hand (--kubeconfig)")
    rights: RightsFacts | Unknown = Unknown("no settings of agent or connector are given")
    hardware: tuple[Finding, ...] | Unknown = Unknown("no agent settings of this node are given (--agent-settings)")
    tested: Mapping[str, str] | Unknown = Unknown("no planner settings are given (-c FILE)")
    """By deployment, the counts of the test decision; see `gather_metrics.trial_decisions`."""
    versions: tuple[str, ...] = ()
    """Of this program and of its contract."""

    def node_term_s(self, node: str) -> float:
        """How long ``node`` may be without a report."""
        from fnmatch import fnmatchcase

        config = None if isinstance(self.settings, Unknown) else self.settings.config
        for site in config.sites.values() if config is not None else ():
            if any(fnmatchcase(node, pattern) for pattern in site.nodes):
                return site.stale_s
        return NODE_TERM_S
