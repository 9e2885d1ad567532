"""Ten minutes of a generated load on twelve GPUs, for tests of policies and of the bound."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

from planner.adapters.traces import Trace
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.workload.generated import generated
from planner.sim.workload.scenario import Scenario, card_of, disaggregated
from tests.unit.planner.sim.small_plants import profile

STARTUP_S = 20.0


def load(seconds: float = 600.0, rate: float = 12.0) -> Trace:
    requests = generated(2, requests_per_s=rate, wave_s=seconds)
    return Trace.of("generated", itertools.takewhile(lambda r: r.t_s < seconds, requests))


def scenario(**changes: Any) -> Scenario:
    engines = profile(max_batched=8192)
    base = Scenario(
        trace=load(),
        profile=engines,
        cluster=ClusterSpec(2, 6, card_of("h200")),
        pools=disaggregated(engines, "h200", startup_s=STARTUP_S, start=(3, 2)),
        ttft_ms=800.0,
        itl_ms=25.0,
    )
    return replace(base, **changes)
