"""Deployments that are only watched: what is planned for them is recorded, and nothing of theirs is touched.

Owns which deployments are watched, and how the ledger treats their GPUs. Must never let a decision change a limit of
such a GPU: no cap, no lease, no lower limit in a cut. A site whose deployments are all watched gets no power decision.
"""

from __future__ import annotations

from dataclasses import replace

from planner.core.power.site_state import PowerState
from planner.domain.config import OperationMode, PlannerConfig
from planner.domain.ids import DeploymentId, SiteId
from planner.domain.observation import GpuObservation, NodeObservation


def members(config: PlannerConfig, site: SiteId) -> tuple[DeploymentId, ...]:
    """All deployments of a site."""
    return tuple(name for name, each in config.deployments.items() if each.site == site)


def is_watched(config: PlannerConfig, deployment: DeploymentId | None) -> bool:
    """Whether a deployment of this planner is only watched."""
    known = config.deployments.get(deployment) if deployment is not None else None
    return known is not None and known.mode is OperationMode.ADVISORY


def watching(config: PlannerConfig) -> bool:
    """Whether any deployment is only watched."""
    return any(each.mode is OperationMode.ADVISORY for each in config.deployments.values())


def acting(config: PlannerConfig, site: SiteId) -> tuple[DeploymentId, ...]:
    """The deployments of a site whose decisions are published."""
    return tuple(name for name in members(config, site) if not is_watched(config, name))


def hands_off(config: PlannerConfig, site: SiteId) -> bool:
    """Whether nothing may be decided for the site's GPUs: it has deployments, and all of them are only watched."""
    return bool(members(config, site)) and not acting(config, site)


def as_they_stand(seen: NodeObservation, config: PlannerConfig, power: PowerState) -> NodeObservation:
    """The node's report, with the present limit of each watched deployment's GPU as the only limit that the GPU can
    take.

    A power decision names every GPU of its node. With the limit in force as both bounds, the cap, fallback and smallest
    cap of such a GPU equal that limit: the ledger charges it as it is, and neither a cut nor the end of a lease lowers
    it.
    """
    if not any(is_watched(config, gpu.deployment) for gpu in seen.gpus.values()):
        return seen
    gpus = {name: _fixed(gpu) if is_watched(config, gpu.deployment) else gpu for name, gpu in seen.gpus.items()}
    fixed = replace(seen, gpus=gpus)
    known = power.nodes.get(seen.node)
    # The ledger recognises by identity a report that it has already taken in.
    return known.seen if known is not None and known.seen == fixed else fixed


def _fixed(gpu: GpuObservation) -> GpuObservation:
    if gpu.enforced_mw is None:
        return gpu
    limit_mw = max(gpu.enforced_mw, gpu.requested_mw or 0)
    return replace(gpu, min_mw=limit_mw, max_mw=limit_mw)
