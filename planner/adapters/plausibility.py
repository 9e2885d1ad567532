"""Messages that the contract allows and no correct sender writes: they are left out, as unreadable ones are. Pure.

One report of a GPU of a gigawatt would be charged to its site for good. What is left out changes no charge: its node
counts as one that did not report. So the bounds must be beyond all hardware, or hardware that is there is not charged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from bus_schemas import v1
from bus_schemas.v1 import Message
from bus_schemas.visible_text import visible

MOST_REPLICAS = 1_000_000
"""As the contract's own limit for worker counts."""
LAST_ID = 2**52
"""Half of the ids that the contract allows: an answer to a later one would leave none for the decisions to come."""


@dataclass(frozen=True, slots=True)
class ReportBounds:
    """The largest values that a node's reports may have."""

    highest_gpu_watts: float = 5000.0
    most_gpus: int = 64


def flaw(message: Message, bounds: ReportBounds) -> str:
    """Why ``message`` is implausible, as words for operators; empty where it is not. ``bounds``: of its node."""
    match message:
        case v1.NodeTelemetry():
            return _of_gpus([gpu.gpu for gpu in message.gpus], bounds) or _first(
                _of_card(gpu, bounds) for gpu in message.gpus
            )
        case v1.PowerAck():
            return (
                _of_ids(message.decision_id, message.applied_decision_id)
                or _of_gpus([gpu.gpu for gpu in message.gpus], bounds)
                or _first(
                    _of_watts(gpu.gpu, {"requested": gpu.requested_watts, "enforced": gpu.enforced_watts}, bounds)
                    for gpu in message.gpus
                )
            )
        case v1.ScalingAck():
            return _of_ids(message.decision_id, message.scaled_decision_id) or _of_replicas(message.replicas)
        case v1.DeploymentControl():
            return _of_replicas(message.replicas)
        case _:
            return ""


def impossible_draw(report: v1.NodeTelemetry, bounds: ReportBounds) -> str:
    """Which GPU's draw cannot be true, as words for operators; empty where all can."""
    return _first(_of_watts(gpu.gpu, {"draw": gpu.draw_watts}, bounds) for gpu in report.gpus)


def without_impossible_draws(report: v1.NodeTelemetry, bounds: ReportBounds) -> v1.NodeTelemetry:
    """The report with every impossible draw unknown. Its limits count: a broken sensor must not hide a lost cap."""
    gpus = tuple(
        gpu.model_copy(update={"draw_watts": None}) if (gpu.draw_watts or 0.0) > bounds.highest_gpu_watts else gpu
        for gpu in report.gpus
    )
    return report.model_copy(update={"gpus": gpus})


def _of_gpus(names: list[str], bounds: ReportBounds) -> str:
    if len(names) > bounds.most_gpus:
        return f"{len(names)} GPUs on one node, more than {bounds.most_gpus} (most_gpus_per_node of its site)"
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        return f"GPU {visible(twice)} is in it more than once"
    return ""


def _of_card(gpu: v1.GpuTelemetry, bounds: ReportBounds) -> str:
    limits = {
        "default": gpu.default_watts,
        "min": gpu.min_watts,
        "max": gpu.max_watts,
        "requested": gpu.requested_watts,
        "enforced": gpu.enforced_watts,
    }
    if found := _of_watts(gpu.gpu, limits, bounds):
        return found
    if gpu.min_watts > gpu.max_watts:
        return f"GPU {visible(gpu.gpu)}: min_watts {gpu.min_watts:g} is above max_watts {gpu.max_watts:g}"
    if not gpu.default_watts:
        return f"GPU {visible(gpu.gpu)}: default_watts 0, which no card has: it would be charged nothing"
    return ""


def _of_watts(gpu: str, values: Mapping[str, float | None], bounds: ReportBounds) -> str:
    for what, watts in values.items():
        if watts is not None and watts > bounds.highest_gpu_watts:
            most = f"{bounds.highest_gpu_watts:,.0f} W (highest_gpu_watts of its site)"
            return f"GPU {visible(gpu)}: {what}_watts {watts:,.0f} is more than {most}"
    return ""


def _of_ids(*ids: int) -> str:
    return _first(f"decision id {number} is beyond all ids" if number > LAST_ID else "" for number in ids)


def _of_replicas(replicas: Mapping[str, int]) -> str:
    return _first(
        f"pool {visible(pool)}: a count of replicas outside 0 to {MOST_REPLICAS:,}"
        for pool, count in replicas.items()
        if not 0 <= count <= MOST_REPLICAS
    )


def _first(flaws: Iterable[str]) -> str:
    return next(chain(filter(None, flaws), ("",)))
