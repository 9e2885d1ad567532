"""Decode stations: sequences in flight by Little's law, iteration time by the batch that results, KV capacity.

With ``x`` decode iterations asked of one replica per millisecond, batch and iteration time agree where
``batch = x * (a + k * batch) / speed``: solved in closed form, so the required speed needs no search.

A batch fills no faster than sequences arrive: what counts is the batch at the time when new replicas could serve, not
the one that a rate would lead to if it lasted. The batch moves from the sequences in flight to that steady one like
``exp(-t / life)``, where ``life = iterations * iteration time``. With slow start-ups the two are the same.
"""

from __future__ import annotations

import math

import numpy as np

from planner.core.performance.decode_model import DecodeModel
from planner.core.sizing.queueing import CountArray
from planner.core.sizing.sized_load import SizedLoad

KV_HEADROOM = 0.9
"""Share of KV capacity and batch slots planned for: above it engines preempt, and a preempted request pays twice."""
BURST_SIGMAS = 1.3
"""Sequences in flight vary like a Poisson count; capacity is planned this many standard deviations above the mean."""
SPAN = 3.0
"""Number of intervals in which the batch may grow before help arrives: until the next decision, until the one after,
and until that one has taken effect."""
PATIENCE = 1.5
"""Lead times added to that."""
SHORTEST_INTERVAL_S = 1.0


def steps_per_ms(load: SizedLoad) -> float:
    """Decode iterations the whole deployment asks for in a millisecond, over all sequences."""
    rate = load.req_per_s if load.held_req_per_s is None else load.held_req_per_s
    return rate * load.decode_steps / 1000.0


def required_speed(
    model: DecodeModel, load: SizedLoad, counts: CountArray, target_ms: float, correction: float = 1.0
) -> CountArray:
    """Speed at which each count keeps mean ITL within ``target_ms`` and the batch within the KV cache."""
    counts = np.maximum(counts, 1e-9)
    by_latency = latency_speed(model, load, counts, target_ms, correction)
    by_flow = np.maximum(by_latency, capacity_speed(model, load, counts, correction))
    return np.asarray(np.maximum(by_flow, held_speed(model, load, counts, target_ms, correction)))


def arriving_speed(
    model: DecodeModel, load: SizedLoad, counts: CountArray, target_ms: float, correction: float = 1.0
) -> CountArray:
    """Speed at which the mean batch of the load that ARRIVES just meets the target, so that half of the answers do.

    ``required_speed`` without its additions for bursts and for rates that may come: they are right for choosing the
    number of engines, but a prediction must not assume them.
    """
    counts = np.maximum(counts, 1e-9)
    steps = None if load.arriving_req_per_s is None else load.arriving_req_per_s * load.decode_steps / 1000.0
    by_latency = latency_speed(model, load, counts, target_ms, correction, sigmas=0.0, steps=steps)
    return np.asarray(np.maximum(by_latency, held_speed(model, load, counts, target_ms, correction)))


def latency_speed(
    model: DecodeModel,
    load: SizedLoad,
    counts: CountArray,
    target_ms: float,
    correction: float,
    sigmas: float = BURST_SIGMAS,
    steps: float | None = None,
) -> CountArray:
    """Speed at which iterations meet the target with the batch that builds up at exactly that iteration time.

    ``steps``: decode iterations asked for in a millisecond; None: those of ``steps_per_ms``.
    """
    step_ms = step_target_ms(model, load, target_ms, correction)
    a, k = model.a_ms * correction, model.per_sequence_ms(load.context_tokens) * correction
    steady = (steps_per_ms(load) if steps is None else steps) * step_ms
    stays = staying(load, step_ms)
    batch = (min(load.in_flight, steady) * stays + steady * (1.0 - stays)) / counts
    return (a + k * (batch + sigmas * np.sqrt(batch))) / step_ms


def capacity_speed(model: DecodeModel, load: SizedLoad, counts: CountArray, correction: float) -> CountArray:
    """Speed at which sequences leave fast enough to fit into KV cache and batch slots."""
    a, k = model.a_ms * correction, model.per_sequence_ms(load.context_tokens) * correction
    limit = max(1.0, model.batch_limit(load.context_tokens) * KV_HEADROOM)
    burst = 1.0 + BURST_SIGMAS / math.sqrt(limit)
    work, stays = steps_per_ms(load) * (k + a / limit), staying(load, a + k * limit)
    room = counts / burst - load.in_flight * stays / limit
    filling = np.where(room > 0, work * (1.0 - stays) / np.maximum(room, 1e-9), np.inf)
    return np.asarray(np.minimum(filling, work * burst / counts))


def staying(load: SizedLoad, step_ms: float) -> float:
    """Share of today's difference to the steady batch that is left when help serves; 0 where no interval is known."""
    if load.interval_s <= 0.0:
        return 0.0
    span_ms = 1000.0 * (SPAN * max(SHORTEST_INTERVAL_S, load.interval_s) + PATIENCE * load.lead_s)
    return math.exp(-span_ms / max(1e-9, load.decode_steps * step_ms))


def held_speed(
    model: DecodeModel, load: SizedLoad, counts: CountArray, target_ms: float, correction: float
) -> CountArray:
    """Speed for the sequences in flight NOW: forecasts contain neither a batch that has built up nor what waits."""
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
