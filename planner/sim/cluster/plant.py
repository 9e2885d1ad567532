"""The plant: a serving cluster in virtual time, from the arrival of a request to its last token.

Owns the flow between pools, placement on nodes, and the life cycle of workers. Must stay deterministic: every random
number comes from a seeded generator of its own purpose, so that all policies meet the same arrivals, start-up times and
failures.
Times are seconds of the plant's own clock, powers milliwatts.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.domain.pool import Role
from planner.domain.profile import Profile
from planner.domain.request import Request
from planner.sim.cluster.engine_timing import Batching, engine_law
from planner.sim.cluster.frontend import Frontend
from planner.sim.cluster.job import Job
from planner.sim.cluster.sim_gpu import H200, GpuCard, SimGpu, SimGpuReading
from planner.sim.cluster.virtual_time import Events
from planner.sim.cluster.worker import Worker, WorkerState
from planner.sim.cluster.worker_pool import DecodePool, Pool, PoolSpec, PoolSurroundings, PrefillPool, WorkerCounts
from planner.sim.evaluation.records import Records, RequestCounts

MJ_PER_J = 1000.0


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """Equal nodes of equal GPUs; the last one may be smaller."""

    nodes: int
    gpus_per_node: int
    card: GpuCard = H200
    gpus_of_last_node: int | None = None
    """None: as many as the others have."""

    def gpus_of(self, node: int) -> int:
        """Number of GPUs of a node, counted from 0."""
        if self.gpus_of_last_node is not None and node == self.nodes - 1:
            return self.gpus_of_last_node
        return self.gpus_per_node

    @property
    def gpus(self) -> int:
        """Number of GPUs of all nodes."""
        return sum(self.gpus_of(node) for node in range(self.nodes))


@dataclass(frozen=True, slots=True)
class TransferSpec:
    """Seconds to move a prompt's KV cache from a prefill to a decode worker: a fixed part and a part per token."""

    base_s: float = 0.002
    per_token_s: float = 4e-6
    """160 KiB a token (an 8B to 32B model with grouped-query attention) over 40 GB/s."""


@dataclass(frozen=True, slots=True)
class PlantSpec:
    """A cluster, the pools of one deployment on it, and the true behaviour of its engines."""

    cluster: ClusterSpec
    pools: tuple[PoolSpec, ...]
    profile: Profile
    truth: float = 1.0
    """True speed of the engines relative to the profile: at 0.7 all work takes 1 / 0.7 of the profiled time."""
    transfer: TransferSpec = TransferSpec()
    batching: Batching = Batching.EACH
    first_token: Role = Role.DECODE
    """Which first token the client sees: the decode worker's (vLLM, SGLang), or the prefill worker's."""
    seed: int = 0


class NoFreeGpuError(Exception):
    """No node has enough free GPUs for a new worker."""


class Plant:
    """One deployment on one cluster. Drive it with ``submit`` and ``advance``.

    ``counts``: count finished requests instead of keeping their ``records``.
    """

    def __init__(self, spec: PlantSpec, counts: RequestCounts | None = None) -> None:
        self.spec = spec
        self.events = Events()
        self.records = Records()
        self._finished_requests = self.records if counts is None else counts
        self.frontend = Frontend()
        self.gpus = {gpu.uuid: gpu for gpu in _gpus(spec.cluster)}
        self.refused = 0
        """Requests that no worker's KV cache could ever hold."""
        self.gpu_seconds_released = 0.0
        self.starts: list[tuple[str, float, float]] = []
        """(pool, begin, end) of every completed start-up, in the order of the ends."""
        self._energy_released_mj = 0.0
        self._gpu_worker: dict[str, Worker] = {}
        self._starts = {pool.pool: random.Random(f"{spec.seed}/start/{pool.pool}") for pool in spec.pools}
        self._failures = {pool.pool: random.Random(f"{spec.seed}/fail/{pool.pool}") for pool in spec.pools}
        self._made = 0
        self._arrivals: Iterator[Request] = iter(())
        self._submission = 0
        self.exhausted = True
        """Whether all submitted requests have arrived."""
        law = engine_law(spec.profile, spec.truth, spec.batching)
        around = PoolSurroundings(self.events, self.frontend, self._worker_gone, law)
        self.pools: dict[str, Pool] = {}
        for pool in spec.pools:
            self.pools[pool.pool] = (
                PrefillPool(pool, around, self._prefilled)
                if pool.role is Role.PREFILL
                else DecodePool(pool, around, self._finished)
            )
        self._entry, self._decode = _route(self.pools)
        for pool in spec.pools:
            for _ in range(pool.replicas):
                self._start(self.pools[pool.pool], None, startup_s=0.0)
        self.advance(0.0)

    # -- time and load

    @property
    def now_s(self) -> float:
        """The plant's clock."""
        return self.events.now_s

    def submit(self, requests: Iterable[Request]) -> None:
        """Let ``requests`` (by rising ``t_s``; may be endless) arrive. Replaces what has not arrived yet."""
        self._arrivals = iter(requests)
        self._submission += 1
        self.exhausted = False
        self._plan_arrival()

    def advance(self, until_s: float) -> None:
        """Process all events up to ``until_s``."""
        self.events.run_until(until_s)

    @property
    def in_flight(self) -> int:
        """Requests that have arrived and are not finished."""
        return self.frontend.started - len(self._finished_requests) - self.refused

    def _plan_arrival(self) -> None:
        request = next(self._arrivals, None)
        if request is None:
            self.exhausted = True
            return
        self.events.at(request.t_s, self._arrive, (self._submission, request))

    def _arrive(self, planned: tuple[int, Request]) -> None:
        submission, request = planned
        if submission != self._submission:
            return
        job = Job(self.frontend.started, request)
        self.frontend.arrived(job)
        self._plan_arrival()
        if request.isl + request.osl > self._decode.max_kv_tokens:
            self.refused += 1
            return
        self._entry.enqueue(job)

    # -- the path of a request

    def _prefilled(self, batch: list[Job]) -> None:
        self.frontend.cached_tokens += sum(job.cached_tokens for job in batch)
        if self.spec.first_token is Role.PREFILL:
            for job in batch:
                self._first_token_at_prefill(job)
        transfer = self.spec.transfer
        tokens = sum(job.isl for job in batch)
        self.events.at(self.now_s + transfer.base_s + transfer.per_token_s * tokens, self._transferred, batch)

    def _first_token_at_prefill(self, job: Job) -> None:
        job.done_tokens = max(job.done_tokens, 1)
        if job.first_s < 0:
            job.first_s = self.now_s
            self.frontend.ttft.observe(job.first_s - job.t_s)

    def _transferred(self, batch: list[Job]) -> None:
        for job in batch:
            self._decode.enqueue(job)

    def _finished(self, job: Job) -> None:
        self.frontend.finished(self._finished_requests.add(job, self.now_s))

    # -- workers

    def start_worker(self, pool: str, gpus: Sequence[str] | None = None) -> str:
        """Start a worker on ``gpus`` if all are free, else on the node with the fewest left over. Returns its name.

        Raises NoFreeGpuError, and KeyError for an unknown pool.
        """
        return self._start(self.pools[pool], gpus).worker

    def _start(self, pool: Pool, wanted: Sequence[str] | None, startup_s: float | None = None) -> Worker:
        gpus = self._place(pool.spec.gpus_per_replica, wanted)
        worker = pool.make(f"{pool.spec.pool}-{self._made}", gpus)
        self._made += 1
        for gpu in gpus:
            self._gpu_worker[gpu.uuid] = worker
        if startup_s is None:
            startup_s = _log_normal(self._starts[pool.spec.pool], pool.spec.startup_s, pool.spec.startup_cv)
        self.events.at(self.now_s + startup_s, self._ready, worker)
        return worker

    def _ready(self, worker: Worker) -> None:
        if worker.state is not WorkerState.STARTING:
            return
        pool = self.pools[worker.pool]
        self.starts.append((worker.pool, worker.started_s, self.now_s))
        pool.worker_ready(worker)
        if pool.spec.mtbf_s is not None:
            life_s = self._failures[worker.pool].expovariate(1.0 / pool.spec.mtbf_s)
            self.events.at(self.now_s + life_s, self._fail, worker)

    def _fail(self, worker: Worker) -> None:
        if worker.alive:
            self.fail_worker(worker.worker)

    def drain_worker(self, worker: str) -> None:
        """Let a worker finish its requests and stop. No effect on a worker that is draining or gone."""
        found = self._find(worker)
        if found is not None and found.state is not WorkerState.DRAINING:
            self.pools[found.pool].drain(found)

    def drain_one(self, pool: str) -> str | None:
        """Drain the worker of ``pool`` with the least work, and return its name; None when none is left."""
        found = self.pools[pool].next_to_drain()
        if found is not None:
            self.pools[pool].drain(found)
        return None if found is None else found.worker

    def reclaim_one(self, pool: str) -> str | None:
        """Let a draining worker of ``pool`` serve again, and return its name; None where none drains."""
        found = self.pools[pool].reclaim()
        return None if found is None else found.worker

    def fail_worker(self, worker: str) -> None:
        """Kill a worker: its requests start again from their prompts, ahead of all others."""
        found = self._find(worker)
        if found is None:
            return
        pool = self.pools[found.pool]
        pool.queued_tokens -= found.waiting_tokens
        lost = found.abandon()
        del pool.workers[worker]
        self._worker_gone(found)
        found.state = WorkerState.FAILED
        for job in reversed(lost):
            self._entry.enqueue_front(job)
        self._entry.dispatch()

    def _find(self, worker: str) -> Worker | None:
        for pool in self.pools.values():
            if worker in pool.workers:
                return pool.workers[worker]
        return None

    def _worker_gone(self, worker: Worker) -> None:
        worker.state = WorkerState.GONE
        self.gpu_seconds_released += (self.now_s - worker.started_s) * len(worker.gpus)
        self._energy_released_mj += self._energy_of(worker)
        for gpu in worker.gpus:
            gpu.set_load(gpu.card.idle_mw, self.now_s)
            gpu.owner = ""
            del self._gpu_worker[gpu.uuid]

    def _place(self, count: int, wanted: Sequence[str] | None) -> list[SimGpu]:
        if wanted and len(wanted) == count:
            chosen = [self.gpus[uuid] for uuid in wanted if uuid in self.gpus and not self.gpus[uuid].owner]
            if len(chosen) == count:
                return chosen
        free: dict[str, list[SimGpu]] = {}
        for gpu in self.gpus.values():
            if not gpu.owner:
                free.setdefault(gpu.node, []).append(gpu)
        fitting = [gpus for gpus in free.values() if len(gpus) >= count]
        if not fitting:
            raise NoFreeGpuError(f"no node has {count} free GPUs")
        return min(fitting, key=len)[:count]

    # -- power

    def set_cap(self, gpu: str, mw: int) -> int:
        """Set a GPU's limit. Returns the enforced one in milliwatts. Raises KeyError for an unknown GPU."""
        enforced = self.gpus[gpu].set_limit(mw, self.now_s)
        worker = self._gpu_worker.get(gpu)
        if worker is not None:
            worker.limits_changed()
        return enforced

    def gpu(self, gpu: str) -> SimGpuReading:
        """The present reading of one GPU. Raises KeyError for an unknown one."""
        found = self.gpus[gpu]
        found.advance(self.now_s)
        worker = self._gpu_worker.get(gpu)
        return SimGpuReading(
            found.uuid,
            found.node,
            found.requested_mw,
            found.enforced_mw,
            round(found.draw_mw),
            round(found.load_mw),
            int(found.energy_mj),
            "" if worker is None else worker.pool,
            "" if worker is None else worker.worker,
            worker is not None and worker.state is WorkerState.DRAINING,
        )

    def readings(self) -> list[SimGpuReading]:
        """Readings of all GPUs, by node and index."""
        return [self.gpu(uuid) for uuid in self.gpus]

    def total_energy_j(self) -> float:
        """Energy of all GPUs since the start in joules, idle ones included."""
        for gpu in self.gpus.values():
            gpu.advance(self.now_s)
        return sum(gpu.energy_mj for gpu in self.gpus.values()) / MJ_PER_J

    def serving_energy_j(self) -> float:
        """Energy of GPUs while workers held them, in joules."""
        held = sum(self._energy_of(w) for pool in self.pools.values() for w in pool.workers.values())
        return (self._energy_released_mj + held) / MJ_PER_J

    def _energy_of(self, worker: Worker) -> float:
        for gpu in worker.gpus:
            gpu.advance(self.now_s)
        return sum(gpu.energy_mj for gpu in worker.gpus) - worker.energy_at_start_mj

    # -- reading

    def gpu_hours(self) -> float:
        """GPU-hours held by workers so far."""
        held = sum(
            (self.now_s - w.started_s) * len(w.gpus) for pool in self.pools.values() for w in pool.workers.values()
        )
        return (self.gpu_seconds_released + held) / 3600.0

    def worker_counts(self) -> Mapping[str, WorkerCounts]:
        """Workers by pool and state."""
        return {name: pool.counts() for name, pool in self.pools.items()}

    def summary(self, ttft_ms: float, itl_ms: float) -> dict[str, Any]:
        """Totals so far; a request is good when its TTFT and its mean ITL met their targets."""
        tokens = self.frontend.output_tokens_total
        energy_j = self.total_energy_j()
        return {
            "requests": self.frontend.started,
            "finished_requests": len(self._finished_requests),
            "good_requests": self._finished_requests.good(ttft_ms, itl_ms),
            "refused_requests": self.refused,
            "in_flight_requests": self.in_flight,
            "output_tokens": int(tokens),
            "gpu_hours": self.gpu_hours(),
            "energy_joules": energy_j,
            "serving_energy_joules": self.serving_energy_j(),
            "joules_per_output_token": energy_j / tokens if tokens else None,
            "load_seconds": self.now_s,
        }


def _gpus(cluster: ClusterSpec) -> Iterator[SimGpu]:
    for node in range(cluster.nodes):
        for index in range(cluster.gpus_of(node)):
            yield SimGpu(f"GPU-node-{node}-{index:02d}", f"node-{node}", cluster.card)


def _route(pools: Mapping[str, Pool]) -> tuple[Pool, DecodePool]:
    """Where requests enter, and where they end."""
    by_role = {pool.spec.role: pool for pool in pools.values()}
    last = by_role.get(Role.DECODE) or by_role.get(Role.AGGREGATED)
    first = by_role.get(Role.PREFILL) or by_role.get(Role.AGGREGATED)
    if first is None or not isinstance(last, DecodePool) or len(by_role) != len(pools):
        raise ValueError("a plant has one prefill and one decode pool, or one aggregated pool")
    return first, last


def _log_normal(rng: random.Random, mean: float, cv: float) -> float:
    if mean <= 0 or cv <= 0:
        return max(mean, 0.0)
    sigma2 = math.log(1.0 + cv * cv)
    return rng.lognormvariate(math.log(mean) - sigma2 / 2.0, math.sqrt(sigma2))
