"""What the bus forgets by itself, as the product makes its streams, and whether it refuses a leader of the past."""

from __future__ import annotations

from functools import cache

from bus_schemas import streams
from bus_schemas.subjects import Subjects
from deploy.fault_simulation.exhaustive.world import Node


@cache
def _max_age_s() -> dict[str, float]:
    return {spec.name: spec.max_age_s or float("inf") for spec in streams.stream_specs(Subjects())}


def max_age_s(stream: str) -> float:
    """How long the product's stream keeps a message."""
    return _max_age_s()[stream]


def kept(node: Node, now_s: float) -> Node:
    """A node's subjects without what has aged away."""
    decisions, acks = max_age_s(streams.DECISIONS), max_age_s(streams.ACKS)
    telemetry = max_age_s(streams.TELEMETRY)
    return node._replace(
        decisions=tuple([d for d in node.decisions if now_s - d.published_s <= decisions]),
        answers=tuple([a for a in node.answers if now_s - (a.clock_s or 0.0) <= acks]),
        reports=tuple([r for r in node.reports if now_s - r.made_s <= telemetry]),
    )


def unfenced() -> bool:
    """Whether the bus takes batches of a leader that was replaced: never, but a mutation may say so."""
    return False
