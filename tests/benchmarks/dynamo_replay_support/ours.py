"""Wattscale's ``step`` behind the replay's scaling hook: the same function that the service runs.

Owns two translations: the hook's tick into an observation, the plan into targets. The planner gets only what a live
deployment reports (frontend counters, queues, replica states), never the trace or the simulator's model.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from planner.core.intake import initial_state
from planner.core.step import step
from planner.domain.config import DeploymentConfig, PlannerConfig, PoolConfig
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.observation import DeploymentObservation, Observation, PoolObservation, ScalingAckSeen
from planner.domain.pool import Replicas, Role
from planner.domain.power import PowerCurve
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile
from planner.domain.reading import NO_DATA, Reading, Sample

NAME = DeploymentId("replayed")
Tick = Mapping[str, Any]


def profile(folder: Path, limits: Mapping[str, int]) -> Profile:
    """A profile in Dynamo's JSON form. GPUs per engine come from its ``meta.json``, as in the product; without it 1."""
    gpus = gpus_per_engine(folder)
    prefill = json.loads((folder / "prefill_raw_data.json").read_text())
    decode = json.loads((folder / "decode_raw_data.json").read_text())
    return Profile(
        name=folder.name,
        prefill=PrefillProfile(
            *(tuple(prefill[key]) for key in ("prefill_isl", "prefill_ttft", "prefill_thpt_per_gpu"))
        ),
        decode=DecodeProfile(
            kv_usage=tuple(decode["x_kv_usage"]),
            context_tokens=tuple(decode["y_context_length"]),
            itl_ms=tuple(decode["z_itl"]),
            tokens_per_s_per_gpu=tuple(decode["z_thpt_per_gpu"]),
            max_kv_tokens=int(decode["max_kv_tokens"]),
        ),
        prefill_gpus=gpus["prefill"],
        decode_gpus=gpus["decode"],
        max_num_seqs=limits["max_num_seqs"],
        max_num_batched_tokens=limits["max_num_batched_tokens"],
    )


def gpus_per_engine(folder: Path) -> dict[str, int]:
    """GPUs that one engine of each role holds."""
    path = folder / "meta.json"
    meta = json.loads(path.read_text()) if path.exists() else {}
    return {role: int(meta.get(f"{role}_tp") or 1) for role in ("prefill", "decode")}


def settings(
    engine: Profile, ttft_ms: float, itl_ms: float, startup_s: float, given: Mapping[str, Any]
) -> PlannerConfig:
    """The planner's configuration: the product's defaults, but for what is ``given``; ``interval_s`` is the planner's
    own."""
    chosen = dict(given)
    interval_s = chosen.pop("interval_s", None)
    curve = PowerCurve(
        p_s_mw=140_000,
        p_u_mw=616_000,
        alpha=0.6,
        idle_mw=100_000,
        min_mw=200_000,
        max_mw=700_000,
        useful_mw=350_000,
    )
    pools = {
        PoolId(role.value): PoolConfig(
            pool=PoolId(role.value), role=role, gpus_per_replica=gpus, curve=curve, startup_s=startup_s
        )
        for role, gpus in ((Role.PREFILL, engine.prefill_gpus), (Role.DECODE, engine.decode_gpus))
    }
    deployment = DeploymentConfig(
        deployment=NAME, site=SiteId(""), pools=pools, profile=engine, ttft_ms=ttft_ms, itl_ms=itl_ms, **chosen
    )
    shipped = PlannerConfig(deployments={NAME: deployment})
    return shipped if interval_s is None else replace(shipped, interval_s=float(interval_s))


class Ours:
    """The hook's policy. ``step_s`` adds up the time spent in ``step``."""

    def __init__(self, config: PlannerConfig) -> None:
        self._config = config
        self._state = initial_state(config, 1, 0.0, (), ())
        self._wanted: dict[str, int] = {}
        self._decision_id = -1
        self._seen: dict[str, dict[int, Tick]] = {"prefill": {}, "decode": {}}
        self.step_s = 0.0
        self.ticks = 0
        self.log: list[dict[str, Any]] = []

    def start(self) -> None:
        """Nothing to warm up: the planner starts cold."""

    def initial_tick_ms(self) -> float:
        return self._config.interval_s * 1000.0

    def on_tick(self, result: dict[str, Any]) -> dict[str, Any]:
        now_s = result["now_ms"] / 1000.0
        observation = self._observation(result)
        started = time.perf_counter()
        self._state, plan = step(self._state, observation, self._config, self._config.clock(now_s))
        self.step_s += time.perf_counter() - started
        self.ticks += 1
        for order in plan.scaling:
            self._wanted = {str(name): count for name, count in order.replicas.items()}
            self._decision_id = order.decision_id
        self._note(now_s, result, plan.deployments[NAME])
        return {
            "target_prefill": self._wanted.get("prefill"),
            "target_decode": self._wanted.get("decode"),
            "next_tick_ms": result["now_ms"] + self._config.interval_s * 1000.0,
        }

    def _observation(self, result: Tick) -> Observation:
        traffic = result["traffic"]
        for role, known in self._seen.items():
            here = {*result[f"active_{role}_ids"], *result[f"draining_{role}_ids"]}
            known.update({snapshot["worker_id"]: snapshot for snapshot in result[f"{role}_fpm_snapshots"]})
            self._seen[role] = {worker: snapshot for worker, snapshot in known.items() if worker in here}
        shaped = traffic["shape_count"] > 0
        seen = DeploymentObservation(
            interval_s=traffic["duration_s"],
            requests=Sample(float(traffic["num_req"])),
            isl_tokens=_where(shaped, traffic["avg_isl"]),
            osl_tokens=_where(shaped, traffic["avg_osl"]),
            ttft_ms=_where(traffic["ttft_count"] > 0, traffic["avg_ttft_ms"]),
            itl_ms=_where(traffic["itl_count"] > 0, traffic["avg_itl_ms"]),
            kv_hit_rate=_where(traffic["hit_rate_count"] > 0, traffic["avg_kv_hit_rate"]),
            pools={PoolId(role): self._pool(result, role) for role in ("prefill", "decode")},
        )
        acks = {}
        if self._wanted and all(result[f"non_draining_{role}_count"] == n for role, n in self._wanted.items()):
            acks[NAME] = ScalingAckSeen(NAME, self._decision_id, self._decision_id, "done")
        return Observation(deployments={NAME: seen}, scaling_acks=acks)

    def _pool(self, result: Tick, role: str) -> PoolObservation:
        workers = [self._seen[role][i] for i in result[f"active_{role}_ids"] if i in self._seen[role]]
        return PoolObservation(
            replicas=Replicas(
                ready=result[f"active_{role}_count"],
                starting=result[f"starting_{role}_count"],
                terminating=result[f"draining_{role}_count"],
            ),
            queued_requests=Sample(float(sum(worker[f"num_queued_{role}"] for worker in workers))),
            running_requests=Sample(float(sum(worker[f"num_{role}_requests"] for worker in workers))),
        )

    def _note(self, now_s: float, result: Tick, plan: Any) -> None:
        row = {"at_s": now_s, "req_per_s": result["traffic"]["num_req"] / max(1e-9, result["traffic"]["duration_s"])}
        row |= {
            f"{name}_{key}": getattr(pool, key) for name, pool in plan.pools.items() for key in ("wanted", "granted")
        }
        row |= {f"{name}_upper": forecast.upper for name, forecast in plan.forecasts.items()}
        self.log.append(row)


def _where(there: bool, value: float | None) -> Reading:
    return Sample(float(value)) if there and value is not None else NO_DATA
