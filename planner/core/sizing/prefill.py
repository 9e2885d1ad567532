"""Prefill stations: a queue in front of engines that batch whole prompts."""

from __future__ import annotations

import numpy as np

from planner.core.perf.prefill import PrefillModel
from planner.core.sizing.load import SizedLoad
from planner.core.sizing.queueing import FULLEST, Counts, Station

ROOM_TO_WAIT = 1.25
"""A target below the service time itself can not be met by any count: it is then sized for this much of that time."""


def station(model: PrefillModel, load: SizedLoad, quantile: float, correction: float) -> Station:
    """The prefill queue of a load; ``correction`` multiplies the profile's times."""
    tokens = load.prefill_tokens
    return Station(
        req_per_s=load.req_per_s,
        own_ms=model.ttft_ms(tokens) * correction,
        cost_ms=model.cost_ms(tokens) * correction,
        dispersion=(load.arrival_cv2 + load.isl_cv2) / 2.0,
        quantile=quantile,
    )


def required_speed(queue: Station, load: SizedLoad, counts: Counts, target_ms: float, drain_s: float) -> Counts:
    """Speed at which each count meets the TTFT target and drains the backlog within ``drain_s``."""
    target = max(target_ms, ROOM_TO_WAIT * queue.own_ms)
    speed = queue.required_speed(counts, target)
    if load.queued_requests <= 0:
        return speed
    backlog_ms = load.queued_requests * queue.cost_ms
    flow_ms = load.req_per_s * drain_s * queue.cost_ms
    return np.maximum(speed, (backlog_ms + flow_ms) / (drain_s * 1000.0 * FULLEST) / np.maximum(counts, 1e-9))


def reachable(queue: Station, target_ms: float) -> bool:
    """Whether any number of replicas could meet the target."""
    return queue.own_ms < target_ms
