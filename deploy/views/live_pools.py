"""What a running bus shows of the deployments that settings name: which GPUs are whose, for `planner check --live`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bus_schemas import v1
from planner.adapters import from_wire
from planner.core import gpu_pools
from planner.domain.config import PlannerConfig


def lines(telemetry: Iterable[v1.NodeTelemetry], config: PlannerConfig) -> Iterator[str]:
    """For every deployment its GPUs by pool, and by name every pool without a GPU and every GPU without a pool."""
    nodes = [gpu_pools.matched(from_wire.node(each, age_s=0.0), config.deployments) for each in telemetry]
    held = gpu_pools.held_by(nodes)
    for name, deployment in config.deployments.items():
        ours = [gpu.pool for node in nodes for gpu in node.gpus.values() if gpu.deployment == name]
        for pool in deployment.pools:
            count = ours.count(pool)
            if count:
                yield f"ok: {name}: pool {pool} holds {count} GPUs"
            else:
                yield f"note: {name}: pool {pool} holds no GPU of the {len(ours)} that report this deployment"
        for note in gpu_pools.strangers(held, deployment):
            yield f"note: {name}: {note.sentence}"
