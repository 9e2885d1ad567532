"""Autoscalers without a model of what they scale: HPA on utilisation, KEDA on queues, Knative on concurrency.

Each runs one autoscaler per pool, as in production. Thresholds come from ``tuning``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from planner.domain.pool import Role
from planner.sim.cluster.decode_worker import DecodeWorker
from planner.sim.cluster.prefill_worker import PrefillWorker
from planner.sim.cluster.worker import Worker, WorkerState
from planner.sim.cluster.worker_pool import Pool
from planner.sim.evaluation.simulation import SimulationRun
from planner.sim.policies import hpa_rule
from planner.sim.policies.cap_policies import Caps, NoCaps
from planner.sim.policies.tuning import Capacity, capacity
from planner.sim.workload.scenario import Scenario


class Scaler(Protocol):
    """Computes counts at its own interval."""

    every_s: float

    def prepare(self, run: SimulationRun) -> None:
        """Called when the run begins."""
        ...

    def wanted(self, run: SimulationRun) -> Mapping[str, int]:
        """The counts by pool that it wants now."""
        ...


@dataclass(slots=True)
class Peer:
    """A scaler and a cap policy, independent of each other. Needs a new instance for each run."""

    label: str
    scaler: Scaler | None
    caps: Caps
    start: Mapping[str, int]

    @property
    def name(self) -> str:
        return self.label

    def start_replicas(self, scenario: Scenario) -> Mapping[str, int]:
        return self.caps.allowed(scenario, self.start) if self.start else {}

    def attach(self, run: SimulationRun) -> None:
        self.caps.attach(run)
        if self.scaler is not None:
            self.scaler.prepare(run)
            run.plant.events.at(self.scaler.every_s, self._beat, run)

    def _beat(self, run: SimulationRun) -> None:
        if run.over or self.scaler is None:
            return
        wanted = self.scaler.wanted(run)
        allowed = self.caps.allowed(run.scenario, wanted)
        if any(allowed[name] < wanted[name] for name in wanted):
            run.wanted_but_held.append((run.now_s, "power_budget"))
        run.scale(_fitting(run, allowed), self.label)
        run.plant.events.at(run.now_s + self.scaler.every_s, self._beat, run)


def _fitting(run: SimulationRun, wanted: Mapping[str, int]) -> Mapping[str, int]:
    """Counts cut to the GPUs of the cluster; later pools are cut first."""
    left = run.scenario.gpus
    found = {}
    specs = {pool.pool: pool for pool in run.scenario.pools}
    for name, count in wanted.items():
        size = specs[name].gpus_per_replica
        others = sum(specs[n].gpus_per_replica for n in wanted if n not in found and n != name)
        found[name] = max(1, min(count, (left - others) // size))
        left -= found[name] * size
    return found


def _most(run: SimulationRun, pool: Pool) -> int:
    return max(1, run.scenario.gpus // pool.spec.gpus_per_replica)


class UtilisationHpa:
    """HPA on busy share (prefill) and KV-cache use (decode), each against a share of what the engine can hold."""

    every_s = hpa_rule.SYNC_S

    def __init__(self, prefill_target: float = 0.6, decode_share: float = 0.8) -> None:
        self._prefill_target = prefill_target
        self._decode_share = decode_share
        self._rules: dict[str, hpa_rule.Hpa] = {}
        self._busy: dict[str, float] = {}
        self._capacity: Capacity | None = None

    def prepare(self, run: SimulationRun) -> None:
        self._capacity = capacity(run.scenario)
        self._rules = {name: hpa_rule.Hpa(1, _most(run, pool)) for name, pool in run.plant.pools.items()}

    def wanted(self, run: SimulationRun) -> Mapping[str, int]:
        found = {}
        for name, pool in run.plant.pools.items():
            ready = [w for w in pool.workers.values() if w.state is WorkerState.READY]
            counts = pool.counts()
            values = [self._use(run, worker) for worker in ready]
            desired = hpa_rule.by_utilisation(values, counts.starting, self._target(pool))
            found[name] = self._rules[name].decide(run.now_s, run.fleet.targets[name], desired)
        return found

    def _target(self, pool: Pool) -> float:
        if pool.spec.role is Role.PREFILL or self._capacity is None:
            return self._prefill_target
        return self._decode_share * self._capacity.decode_kv_usage

    def _use(self, run: SimulationRun, worker: Worker) -> float:
        if isinstance(worker, DecodeWorker):
            return worker.kv_usage
        at_hand_s = run.now_s - worker.at_s if isinstance(worker, PrefillWorker) and worker.chunk else 0.0
        busy_s = worker.busy_s + at_hand_s
        share = (busy_s - self._busy.get(worker.worker, 0.0)) / self.every_s
        self._busy[worker.worker] = busy_s
        return min(share, 1.0)


class QueueKeda:
    """KEDA on requests waiting and running, through an HPA: per prefill worker one, per decode worker a safe batch."""

    every_s = hpa_rule.SYNC_S

    def __init__(self, prefill_target: float = 1.0, decode_share: float = 0.8) -> None:
        self._prefill_target = prefill_target
        self._decode_share = decode_share
        self._rules: dict[str, hpa_rule.Hpa] = {}
        self._targets: dict[str, float] = {}

    def prepare(self, run: SimulationRun) -> None:
        batch = capacity(run.scenario).decode_batch * self._decode_share
        for name, pool in run.plant.pools.items():
            self._rules[name] = hpa_rule.Hpa(1, _most(run, pool))
            self._targets[name] = self._prefill_target if pool.spec.role is Role.PREFILL else batch

    def wanted(self, run: SimulationRun) -> Mapping[str, int]:
        found = {}
        for name, pool in run.plant.pools.items():
            current = run.fleet.targets[name]
            desired = hpa_rule.by_total(pool.waiting() + pool.running(), current, self._targets[name])
            found[name] = self._rules[name].decide(run.now_s, current, desired)
        return found


class KnativeKpa:
    """Knative's autoscaler: mean concurrency over a stable and a panic window, at 70 % of each worker's concurrency."""

    every_s = 2.0
    STABLE_S, PANIC_S = 60.0, 6.0
    PANIC_AT, TARGET_SHARE = 2.0, 0.7
    MAX_DOWN = 2.0

    def __init__(self) -> None:
        self._targets: dict[str, float] = {}
        self._seen: dict[str, deque[tuple[float, int]]] = {}
        self._panic_until_s: dict[str, float] = {}
        self._panic_most: dict[str, int] = {}

    def prepare(self, run: SimulationRun) -> None:
        batch = capacity(run.scenario).decode_batch
        for name, pool in run.plant.pools.items():
            self._targets[name] = self.TARGET_SHARE * (1.0 if pool.spec.role is Role.PREFILL else batch)
            self._seen[name] = deque()

    def wanted(self, run: SimulationRun) -> Mapping[str, int]:
        return {name: self._pool(run, name, pool) for name, pool in run.plant.pools.items()}

    def _pool(self, run: SimulationRun, name: str, pool: Pool) -> int:
        now_s, seen = run.now_s, self._seen[name]
        seen.append((now_s, pool.waiting() + pool.running()))
        while seen[0][0] <= now_s - self.STABLE_S:
            seen.popleft()
        ready = max(1, pool.counts().ready)
        stable = self._count(name, [n for _, n in seen])
        panic = self._count(name, [n for t, n in seen if t > now_s - self.PANIC_S])
        stable = max(stable, math.floor(ready / self.MAX_DOWN))
        if panic / ready >= self.PANIC_AT:
            self._panic_until_s[name] = now_s + self.STABLE_S
        if now_s < self._panic_until_s.get(name, -1.0):
            self._panic_most[name] = max(self._panic_most.get(name, 0), panic, stable)
            return min(self._panic_most[name], _most(run, pool))
        self._panic_most.pop(name, None)
        return min(max(1, stable), _most(run, pool))

    def _count(self, name: str, concurrency: list[int]) -> int:
        return math.ceil(sum(concurrency) / len(concurrency) / self._targets[name] - 1e-9)


def fixed(label: str, replicas: Mapping[str, int], caps: Caps | None = None) -> Peer:
    """A static fleet."""
    return Peer(label, None, caps or NoCaps(), replicas)
