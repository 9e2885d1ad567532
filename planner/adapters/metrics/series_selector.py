"""Which series belong to one deployment and to each of its pools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from planner.adapters.metrics.engine_metrics import COMPONENTS, NAMESPACE_LABEL, POOL_LABEL
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role

Labels = Mapping[str, str]


def same_namespace(one: str, other: str) -> bool:
    """Dynamo writes dashes as underscores in some labels, and not in others."""
    return one.replace("-", "_").casefold() == other.replace("-", "_").casefold()


@dataclass(frozen=True, slots=True)
class PoolSelector:
    """How a pool's workers are recognised: by ``component`` when set, else by role."""

    role: Role
    component: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def matches(self, labels: Labels) -> bool:
        """Whether a worker's series with these labels is of this pool."""
        if any(labels.get(name) != value for name, value in self.labels.items()):
            return False
        component = labels.get(POOL_LABEL, "")
        if self.component:
            return component == self.component
        if not component:
            return bool(self.labels)
        role = COMPONENTS.get(component.casefold())
        # A Dynamo deployment without a prefill component still calls its only workers "backend".
        return role is self.role or (self.role is Role.AGGREGATED and role is Role.DECODE)


@dataclass(frozen=True, slots=True)
class SeriesSelector:
    """One deployment as metrics name it. An empty ``model`` or ``namespace`` matches all.

    A series without a model or namespace label matches: it comes from the deployment's own endpoint.
    """

    deployment: DeploymentId
    model: str = ""
    namespace: str = ""
    pools: Mapping[PoolId, PoolSelector] = field(default_factory=dict)
    matchers: Mapping[str, str] = field(default_factory=dict)
    ttft_ms: float | None = None
    itl_ms: float | None = None
    """The targets, for the shares within them; None: not measured."""

    def matches(self, labels: Labels, model_label: str) -> bool:
        """Whether a series with these labels belongs to this deployment."""
        if self.model and labels.get(model_label, self.model).casefold() != self.model.casefold():
            return False
        if self.namespace and not same_namespace(labels.get(NAMESPACE_LABEL, self.namespace), self.namespace):
            return False
        return all(labels.get(name) == value for name, value in self.matchers.items())

    def pool_of(self, labels: Labels) -> PoolId | None:
        """The pool a worker's series belongs to; with a single pool, a series that names none is that pool's."""
        for pool, selector in self.pools.items():
            if selector.matches(labels):
                return pool
        if len(self.pools) == 1 and POOL_LABEL not in labels:
            return next(iter(self.pools))
        return None
