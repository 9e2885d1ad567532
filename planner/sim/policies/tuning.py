"""The thresholds that an operator who knows profile and trace would give a peer.

Peers get the benefit of hindsight: the mean lengths of the very trace they will meet, and the profile's own law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from planner.sim.cluster.engine_timing import engine_law
from planner.sim.workload.scenario import Scenario

KV_SHARE = 0.85


@dataclass(frozen=True, slots=True)
class Capacity:
    """One engine at full speed: the decode requests at which the ITL meets its target, and their KV use (0..1)."""

    decode_batch: float
    decode_kv_usage: float


def capacity(scenario: Scenario) -> Capacity:
    """The capacity by the profile at the trace's mean lengths. Raises ValueError for a profile that lacks a phase."""
    law = engine_law(scenario.profile)
    if law.prefill is None or law.decode is None:
        raise ValueError("peers need both phases of a profile")
    isl = np.asarray(scenario.trace.isl, dtype=np.float64)
    osl = np.asarray(scenario.trace.osl, dtype=np.float64)
    # Requests stay in decode in proportion to the length of their answers, so the mean context is weighted by it.
    context = float((osl * (isl + osl / 2)).sum() / osl.sum())
    d = law.decode
    by_itl = (scenario.itl_ms / 1000 - d.a) / (d.b + d.c * context)
    batch = max(1.0, min(by_itl, KV_SHARE * d.max_kv_tokens / context, d.max_seqs))
    return Capacity(batch, batch * context / d.max_kv_tokens)
