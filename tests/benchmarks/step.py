"""What a tick costs: one deployment, five hundred of them with and without power, and one forecast update.

Run as ``python -m tests.benchmarks.step``. Targets: one deployment under 1 ms (median), 500 deployments under 250 ms a
tick, a forecast update under 50 microseconds. Returns 1 where one is missed. Allocating scarce watts comes on top.
"""

from __future__ import annotations

import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.core.forecast import registry
from planner.core.intake import initial_state
from planner.core.step import step
from planner.domain.config import PlannerConfig, SiteConfig
from planner.domain.ids import DeploymentId, GpuId, NodeId, SiteId
from planner.domain.observation import (
    DeploymentObservation,
    GpuObservation,
    NodeObservation,
    Observation,
    PoolObservation,
    ScalingAckSeen,
)
from planner.domain.pool import Replicas, Role
from planner.domain.reading import Sample
from planner.domain.units import Milliwatts
from tests.benchmarks.dynamo_replay_support import environment
from tests.shared_data import find_shared
from tests.unit.planner.core.small_site import CURVE, DECODE, PREFILL, SITE, deployment, traffic

MANY = 500
TICKS = 12
GPUS_PER_NODE = 8
INTERVAL_S = 30.0


def config(deployments: int, *, powered: bool, per_site: int) -> PlannerConfig:
    """``deployments`` in sites of ``per_site``; a site's budget is about two thirds of what its GPUs could draw."""
    base = deployment()
    found, sites = {}, {}
    for i in range(deployments):
        site = SiteId(f"{SITE}-{i // per_site}")
        name = DeploymentId(f"prod-{i}")
        found[name] = replace(base, deployment=name, site=site)
        if powered:
            nodes = (f"{site}-*",)
            sites[site] = SiteConfig(site, budget_mw=Milliwatts(per_site * GPUS_PER_NODE * 460_000), nodes=nodes)
    return PlannerConfig(found, sites, INTERVAL_S)


def node(of: DeploymentId, site: SiteId, replicas: dict[str, int]) -> NodeObservation:
    """One node for each deployment: its pods, and free GPUs."""
    name = NodeId(f"{site}-{of}")
    held = [pool for pool, count in replicas.items() for _ in range(count)]
    gpus = {}
    for i in range(GPUS_PER_NODE):
        gpu = GpuId(f"{name}-{i}")
        pool = held[i] if i < len(held) else None
        gpus[gpu] = GpuObservation(
            gpu, 300_000, CURVE.max_mw, CURVE.max_mw, CURVE.max_mw, CURVE.min_mw, CURVE.max_mw,
            deployment=of if pool else None, pool=pool, role=Role(pool) if pool else None,  # type: ignore[arg-type]
        )  # fmt: skip
    return NodeObservation(name, gpus, 0.0, "boot", 0.0)


def ticks_s(settings: PlannerConfig, *, powered: bool) -> list[float]:
    """Seconds of each tick after the first two, under loads that wander by themselves."""
    rng = random.Random(2)
    state = initial_state(settings, 1, 0.0, (), ())
    rates = {name: rng.uniform(1.0, 30.0) for name in settings.deployments}
    spent = []
    for tick in range(TICKS):
        seen: dict[DeploymentId, DeploymentObservation] = {}
        nodes, acks = {}, {}
        for name, one in settings.deployments.items():
            rates[name] = min(60.0, max(0.5, rates[name] * rng.uniform(0.85, 1.2)))
            running = {
                PREFILL: PoolObservation(Replicas(2)),
                DECODE: PoolObservation(Replicas(2), running_requests=Sample(40.0)),
            }
            latencies: dict[str, Any] = {"ttft_ms": Sample(120.0), "itl_ms": Sample(9.0)}
            seen[name] = replace(traffic(rates[name], **latencies), pools=running)
            known = state.deployments[name].flow.decision_id
            acks[name] = ScalingAckSeen(name, known, known, "applied")
            if powered:
                told = node(name, one.site, {PREFILL: 2, DECODE: 2})
                nodes[told.node] = told
        observation = Observation(seen, nodes, acks)
        gc.collect()
        gc.disable()
        started = time.process_time()
        state, _ = step(state, observation, settings, settings.clock(tick * INTERVAL_S))
        spent.append(time.process_time() - started)
        gc.enable()
    return spent[2:]


def forecast_update_s() -> float:
    """Median seconds to learn one value and say the next, for the default model in its band."""
    rng = random.Random(1)
    band = registry.make(deployment().predictor, 0.95, 60.0, {})
    spent = []
    for i in range(3000):
        y = rng.uniform(5.0, 15.0)
        started = time.process_time()
        band = band.observe(30.0 * i, y)
        band.forecast(60.0)
        spent.append(time.process_time() - started)
    return statistics.median(spent)


def report(what: str, measure: Callable[[], float], limit_s: float) -> tuple[bool, float]:
    """Print one line; whether the limit holds, and the seconds measured."""
    seconds = measure()
    held = seconds < limit_s
    print(f"{what:52} {seconds * 1000:9.3f} ms   limit {limit_s * 1000:7.3f} ms   {'ok' if held else 'MISSED'}")
    return held, seconds


def beside(what: str, measure: Callable[[], float], floor_s: float) -> None:
    """Print one line: the same with power, as a multiple of what it costs without."""
    seconds = measure()
    print(f"{what:52} {seconds * 1000:9.3f} ms   {seconds / floor_s:.1f} times the same without power")


def dynamo() -> str:
    """The same figure of Dynamo 1.6.1's own decision core, where the referee's environment was made before."""
    profile = find_shared("profiles/dynamo_h200_8b_fp8_tp1p_tp1d")
    interpreter = environment.root() / "bin" / "python"
    if profile is None or not interpreter.exists():
        return "Dynamo 1.6.1's decision core: not measured (tests/benchmarks/dynamo_replay.py makes its environment)"
    script = Path(__file__).with_name("dynamo_step.py")
    told = subprocess.run([interpreter, script, profile], check=True, capture_output=True, text=True).stdout
    seconds = statistics.median(json.loads(told.splitlines()[-1]))
    return f"{'one deployment, Dynamo 1.6.1 decision core':52} {seconds * 1000:9.3f} ms"


def main() -> int:
    """Print every figure; 1 where a limit is missed."""
    one = config(1, powered=False, per_site=1)
    one_powered = config(1, powered=True, per_site=1)
    many = config(MANY, powered=False, per_site=50)
    many_powered = config(MANY, powered=True, per_site=50)
    forecast, _ = report(f"forecast update ({deployment().predictor} and its band)", forecast_update_s, 50e-6)
    single, one_s = report("one deployment", lambda: statistics.median(ticks_s(one, powered=False) * 3), 1e-3)
    beside("one deployment, short of watts", lambda: statistics.median(ticks_s(one_powered, powered=True) * 3), one_s)
    every, many_s = report(f"{MANY} deployments", lambda: statistics.median(ticks_s(many, powered=False)), 0.25)
    beside(
        f"{MANY} deployments, 4000 GPUs, 10 sites short of watts",
        lambda: statistics.median(ticks_s(many_powered, powered=True)),
        many_s,
    )
    print(dynamo())
    return 0 if forecast and single and every else 1


if __name__ == "__main__":
    sys.exit(main())
