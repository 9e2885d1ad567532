"""Prefill stations: a queue in front of engines that batch whole prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from planner.core.performance.prefill_model import PrefillModel
from planner.core.sizing.late_prompts.transient import CapacityLine, Outlook, Prompts
from planner.core.sizing.queueing import FULLEST, CountArray, Station
from planner.core.sizing.sized_load import SizedLoad

POISSON_CV2 = 1.0
"""Squared coefficient of variation of arrivals within an interval: taken as Poisson."""
ROOM_TO_WAIT = 1.25
"""No count meets a target below the service time itself: the pool is then sized for this multiple of that time."""

SPAN = 1.5
"""Intervals after which lateness is evaluated: between the next decision and the time when that one can have helped."""
SHORTEST_INTERVAL_S = 1.0
MEDIAN = 0.5
"""Quantile below which the queue model is not used. An overloaded queue is late for nearly all requests: a lower
quantile would not give a smaller fleet, only shift when the queue overflows. Capacity falls in proportion instead."""
PATIENCE = 0.5
"""Lead times added to that: a backlog that builds up until new replicas serve is worked off over a similar time, not
within one interval."""


def station(model: PrefillModel, load: SizedLoad, quantile: float, correction: float) -> Station:
    """The prefill queue of a load; ``correction`` multiplies the profile's times.

    A single prompt may be faster than in the profile without the engine's throughput being higher: a correction below 1
    therefore shortens only ``own_ms``.
    """
    tokens = load.prefill_tokens
    return Station(
        req_per_s=load.req_per_s,
        own_ms=model.ttft_ms(tokens) * correction,
        cost_ms=model.cost_ms(tokens) * max(1.0, correction),
        dispersion=(POISSON_CV2 + load.isl_cv2) / 2.0,
        quantile=quantile,
    )


Known: TypeAlias = Mapping[Prompts, CapacityLine]
"""What was answered for many deployments at once."""
NOTHING_KNOWN: Known = MappingProxyType({})


def required_speed(
    queue: Station, load: SizedLoad, counts: CountArray, target_ms: float, drain_s: float, known: Known = NOTHING_KNOWN
) -> CountArray:
    """Speed at which each count meets the TTFT target for the load that may come and works off what waits.

    ``drain_s``: within so many seconds of the time when new replicas serve.
    """
    if queue.quantile < MEDIAN:
        half = required_speed(replace(queue, quantile=MEDIAN), load, counts, target_ms, drain_s, known)
        return half * (queue.quantile / MEDIAN)
    if load.rates:
        asked = prompts(queue, load, target_ms)
        line = known.get(asked) if known else None
        speed = (line or asked.outlook.line(asked.target_ms, asked.share)).speeds(counts)
    else:
        speed = queue.required_speed(counts, max(target_ms, ROOM_TO_WAIT * queue.own_ms))
    waiting = waiting_at_help(queue, load)
    if waiting <= 0:
        return speed
    backlog_ms = waiting * queue.cost_ms
    flow_ms = load.req_per_s * drain_s * queue.cost_ms
    return np.maximum(speed, (backlog_ms + flow_ms) / (drain_s * 1000.0 * FULLEST) / np.maximum(counts, 1e-9))


def prompts(queue: Station, load: SizedLoad, target_ms: float) -> Prompts:
    """What ``required_speed`` asks of the transient model."""
    target = max(target_ms, ROOM_TO_WAIT * queue.own_ms)
    return Prompts(outlook(queue, load), target, 1.0 - max(MEDIAN, queue.quantile))


def outlook(queue: Station, load: SizedLoad) -> Outlook:
    """The transient model: the present backlog, every rate that may come, and the time until new replicas serve."""
    return Outlook(
        rates=load.rates,
        own_ms=queue.own_ms,
        cost_ms=queue.cost_ms,
        cs2=load.isl_cv2,
        ca2=POISSON_CV2,
        backlog_ms=load.queued_requests * queue.cost_ms,
        serving=load.serving,
        lead_ms=load.lead_s * 1000.0,
        span_ms=1000.0 * (SPAN * max(SHORTEST_INTERVAL_S, load.interval_s) + PATIENCE * load.lead_s),
    )


def waiting_at_help(queue: Station, load: SizedLoad) -> float:
    """Requests that will wait when new replicas serve: those that wait now, and what arrives beyond what serves."""
    if load.lead_s <= 0.0:
        return load.queued_requests
    arriving = sum(load.rates) / len(load.rates) if load.rates else load.req_per_s
    served = load.serving * 1000.0 / queue.cost_ms
    return max(0.0, load.queued_requests + (arriving - served) * load.lead_s)


def mean_response_ms(queue: Station, load: SizedLoad, count: int, speed: float) -> float:
    """Mean TTFT in milliseconds of prompts assigned in turn to ``count`` replicas, each with its own queue (Kingman).

    ``inf`` at a utilisation of 1 or more. A prompt ends together with its batch, so that later prompts lengthen its
    wait: the same factor ``1 + rho`` as in ``outlook``.
    """
    rho = queue.req_per_s * queue.cost_ms / 1000.0 / max(1, count) / speed
    if rho >= 1.0:
        return math.inf
    wait = rho / (1.0 - rho) * queue.cost_ms * (load.isl_cv2 + POISSON_CV2 / max(1, count)) / 2.0
    return (queue.own_ms + (1.0 + rho) * wait) / speed


def full_batch_speed(model: PrefillModel, load: SizedLoad, target_ms: float, correction: float) -> float:
    """The speed below which a batch of as many prompts as the engine takes at once is late; at most full speed.

    Prompts that come together share a batch and end with it: more replicas do not make it shorter, only speed does. No
    frontend reports whether they come together, so the queue model, for which they do not, cannot know.
    """
    together = max(1.0, model.batched_tokens // max(1.0, load.prefill_tokens))
    return min(1.0, together * model.cost_ms(load.prefill_tokens) * max(1.0, correction) / target_ms)


def reachable(queue: Station, target_ms: float) -> bool:
    """Whether any number of replicas could meet the target."""
    return queue.own_ms < target_ms
