"""Decode stations: sequences in flight by Little's law, iteration time by the batch that results, KV capacity.

With ``x`` decode iterations asked of one replica per millisecond, batch and iteration time agree where
``batch = x * (a + k * batch) / speed``: solved in closed form, so the required speed needs no search.
"""

from __future__ import annotations

import math

import numpy as np

from planner.core.perf.decode import DecodeModel
from planner.core.sizing.load import SizedLoad
from planner.core.sizing.queueing import Counts

KV_HEADROOM = 0.9
"""Share of KV capacity and batch slots planned for: above it engines preempt, and a preempted request pays twice."""
BURST_SIGMAS = 1.3
"""Sequences in flight vary like a Poisson count; capacity is planned this many standard deviations above the mean."""


def steps_per_ms(load: SizedLoad) -> float:
    """Decode iterations the whole deployment asks for in a millisecond, over all sequences."""
    rate = load.req_per_s if load.held_req_per_s is None else load.held_req_per_s
    return rate * load.decode_steps / 1000.0


def required_speed(
    model: DecodeModel, load: SizedLoad, counts: Counts, target_ms: float, correction: float = 1.0
) -> Counts:
    """Speed at which each count keeps mean ITL within ``target_ms`` and the batch within the KV cache."""
    counts = np.maximum(counts, 1e-9)
    by_latency = latency_speed(model, load, counts, target_ms, correction)
    by_flow = np.maximum(by_latency, capacity_speed(model, load, counts, correction))
    return np.asarray(np.maximum(by_flow, held_speed(model, load, counts, target_ms, correction)))


def latency_speed(model: DecodeModel, load: SizedLoad, counts: Counts, target_ms: float, correction: float) -> Counts:
    """Speed at which iterations with the batch that the target itself makes take no longer than the target."""
    step_ms = step_target_ms(model, load, target_ms, correction)
    a, k = model.a_ms * correction, model.per_sequence_ms(load.context_tokens) * correction
    batch = steps_per_ms(load) * step_ms / counts
    return (a + k * (batch + BURST_SIGMAS * np.sqrt(batch))) / step_ms


def capacity_speed(model: DecodeModel, load: SizedLoad, counts: Counts, correction: float) -> Counts:
    """Speed at which sequences leave fast enough to fit into KV cache and batch slots."""
    a, k = model.a_ms * correction, model.per_sequence_ms(load.context_tokens) * correction
    limit = max(1.0, model.batch_limit(load.context_tokens) * KV_HEADROOM)
    return steps_per_ms(load) / counts * (1.0 + BURST_SIGMAS / math.sqrt(limit)) * (k + a / limit)


def held_speed(model: DecodeModel, load: SizedLoad, counts: Counts, target_ms: float, correction: float) -> Counts:
    """What the sequences in flight NOW ask for: a forecast knows neither a batch that has built up nor what waits."""
    step_ms = step_target_ms(model, load, target_ms, correction)
    a, k = model.a_ms * correction, model.per_sequence_ms(load.context_tokens) * correction
    batch = load.in_flight / counts
    limit = max(1.0, model.batch_limit(load.context_tokens) * KV_HEADROOM)
    return np.where(batch > 0, np.maximum((a + k * batch) / step_ms, batch / limit), 0.0)


def step_target_ms(model: DecodeModel, load: SizedLoad, target_ms: float, correction: float) -> float:
    """The iteration time aimed at: the ITL target, or just above an empty engine's where that is slower."""
    steps = max(1.0, load.accept_length)
    least = (model.a_ms + 2.0 * model.per_sequence_ms(load.context_tokens)) * correction
    return max(target_ms * steps, least)


def reachable(model: DecodeModel, load: SizedLoad, target_ms: float, correction: float) -> bool:
    """Whether an engine that serves a single sequence would meet the target."""
    return model.itl_ms(1.0, load.context_tokens) * correction < target_ms * max(1.0, load.accept_length)


def batch(model: DecodeModel, load: SizedLoad, count: float, correction: float = 1.0, speed: float = 1.0) -> float:
    """Sequences in flight on each of ``count`` replicas, at most what the engine holds."""
    limit = model.batch_limit(load.context_tokens)
    x = steps_per_ms(load) * correction / max(count, 1e-9) / max(speed, 1e-9)
    k = model.per_sequence_ms(load.context_tokens)
    if x * k >= 1.0:
        return limit
    return min(limit, x * model.a_ms / (1.0 - x * k))


def itl_ms(model: DecodeModel, load: SizedLoad, count: float, correction: float = 1.0, speed: float = 1.0) -> float:
    """Expected mean ITL with ``count`` replicas."""
    in_flight = batch(model, load, count, correction, speed)
    step = model.itl_ms(in_flight, load.context_tokens) * correction / max(speed, 1e-9)
    return step / max(1.0, load.accept_length)
