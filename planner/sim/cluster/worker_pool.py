"""A pool of equal workers behind one router: first come, first served, to a worker that has room.

By default requests wait at the router, not at workers, so that a new worker helps those already waiting. A prompt
goes to the worker that has been free longest, a decode request to the one with the least KV cache in use.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.sim.cluster.decode_worker import AggregatedWorker, DecodeWorker
from planner.sim.cluster.engine_timing import EngineLaw
from planner.sim.cluster.frontend import Frontend
from planner.sim.cluster.job import Job
from planner.sim.cluster.prefill_worker import PrefillWorker
from planner.sim.cluster.prefix_cache import PrefixCache
from planner.sim.cluster.sim_gpu import SimGpu
from planner.sim.cluster.virtual_time import Events
from planner.sim.cluster.worker import Worker, WorkerSlot, WorkerState


class Router(StrEnum):
    """Where prompts wait for a worker."""

    SHARED = "shared"
    """At the router, until any worker is free."""
    ROUND_ROBIN = "round_robin"
    """At the worker whose turn it was when they arrived, free or not."""


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool's engines. ``startup_s`` is the mean of a log-normal distribution of relative width ``startup_cv``.

    ``mtbf_s``: mean time between failures of one worker; None: workers never fail.
    """

    pool: str
    role: Role
    gpus_per_replica: int
    curve: PowerCurve
    replicas: int = 1
    """Ready at the start of the plant."""
    startup_s: float = 60.0
    startup_cv: float = 0.1
    mtbf_s: float | None = None
    max_prompts: int = 256
    """Maximum number of prompts in one prefill chunk."""
    router: Router = Router.SHARED
    prefix_cache: bool = False
    """Whether prefill workers cache prompt blocks; needs a trace with hashes."""


@dataclass(frozen=True, slots=True)
class WorkerCounts:
    """Workers of a pool by state."""

    ready: int = 0
    starting: int = 0
    draining: int = 0


@dataclass(frozen=True, slots=True)
class PoolSurroundings:
    """What every pool of a plant shares: the clock, the frontend's counters, the engine's timing.

    ``gone`` is called with each worker that has left its pool.
    """

    events: Events
    frontend: Frontend
    gone: Callable[[Worker], None]
    law: EngineLaw


class Pool:
    """What all roles share: the queue, the workers, and their life. Subclasses hand the work out."""

    def __init__(self, spec: PoolSpec, around: PoolSurroundings) -> None:
        self.spec = spec
        self.events = around.events
        self.frontend = around.frontend
        self.workers: dict[str, Worker] = {}
        self.queue: deque[Job] = deque()
        self.queued_tokens = 0
        self._gone = around.gone

    def make(self, worker: str, gpus: Sequence[SimGpu]) -> Worker:
        """A new worker of this pool's role, starting on ``gpus``."""
        made = self.build(WorkerSlot(worker, self.spec.pool, gpus, self.spec.curve, self.events, self))
        self.workers[worker] = made
        return made

    def build(self, slot: WorkerSlot) -> Worker:
        """The engine for ``slot``: what differs between roles."""
        raise NotImplementedError

    def dispatch(self) -> None:
        """Hand waiting jobs to workers that have room."""
        raise NotImplementedError

    def running(self) -> int:
        """Requests being served by workers."""
        raise NotImplementedError

    def waiting(self) -> int:
        """Requests that no worker has begun yet."""
        return len(self.queue)

    def enqueue(self, job: Job) -> None:
        """Queue a job that arrives."""
        self.queue.append(job)
        self.queued_tokens += job.isl
        self.dispatch()

    def enqueue_front(self, job: Job) -> None:
        """Queue a job that comes back; it is next."""
        self.queue.appendleft(job)
        self.queued_tokens += job.isl

    def worker_ready(self, worker: Worker) -> None:
        """Take up a worker whose start-up has ended."""
        worker.become_ready()
        self.dispatch()

    def idle(self, worker: Worker) -> None:
        """Hand more work to a worker that has room again."""
        if worker.state is WorkerState.READY:
            self.dispatch()

    def emptied(self, worker: Worker) -> None:
        """Remove a draining worker that has finished."""
        del self.workers[worker.worker]
        self._gone(worker)

    def drain(self, worker: Worker) -> None:
        """Give the worker no new work; it stops when its present work is finished, a starting one at once."""
        idle = worker.state is WorkerState.STARTING or not worker.busy
        worker.state = WorkerState.DRAINING
        if idle:
            self.emptied(worker)

    def reclaim(self) -> Worker | None:
        """Let the draining worker with the most work serve again, as others finish sooner. None if none drains."""
        draining = [w for w in self.workers.values() if w.state is WorkerState.DRAINING]
        found = max(draining, key=lambda worker: worker.backlog(), default=None)
        if found is not None:
            found.state = WorkerState.READY
            self.dispatch()
        return found

    def next_to_drain(self) -> Worker | None:
        """The newest starting worker, because it serves no requests yet; else the ready one with the least work."""
        starting = [w for w in self.workers.values() if w.state is WorkerState.STARTING]
        if starting:
            return starting[-1]
        ready = [w for w in self.workers.values() if w.state is WorkerState.READY]
        return min(ready, key=lambda worker: worker.backlog(), default=None)

    def counts(self) -> WorkerCounts:
        """Workers by state."""
        states = [w.state for w in self.workers.values()]
        return WorkerCounts(
            states.count(WorkerState.READY), states.count(WorkerState.STARTING), states.count(WorkerState.DRAINING)
        )


class PrefillPool(Pool):
    """Hands out prompts in batches to free workers."""

    def __init__(self, spec: PoolSpec, around: PoolSurroundings, done: Callable[[list[Job]], None]) -> None:
        super().__init__(spec, around)
        law = around.law
        if law.prefill is None:
            raise ValueError(f"pool {spec.pool}: the profile has no prefill part")
        self._law = law.prefill
        self._cache_tokens = law.decode.max_kv_tokens if spec.prefix_cache and law.decode is not None else 0
        self._done = done
        self._free: deque[PrefillWorker] = deque()
        self._turn = 0

    def build(self, slot: WorkerSlot) -> Worker:
        cache = PrefixCache(self._cache_tokens) if self._cache_tokens else None
        return PrefillWorker(slot, self._law, self._done, self.spec.max_prompts, cache)

    def worker_ready(self, worker: Worker) -> None:
        assert isinstance(worker, PrefillWorker)  # noqa: S101 - made above
        self._free.append(worker)
        super().worker_ready(worker)

    def idle(self, worker: Worker) -> None:
        assert isinstance(worker, PrefillWorker)  # noqa: S101 - made above
        if worker.waiting or worker.begun is not None:
            late = self.spec.router is Router.SHARED and worker.state is WorkerState.READY
            self._give(worker, self.queue if late else worker.waiting)
            return
        self._free.append(worker)
        self.dispatch()

    def enqueue(self, job: Job) -> None:
        ready = self._in_turn() if self.spec.router is Router.ROUND_ROBIN else None
        if ready is None:
            super().enqueue(job)
            return
        ready.waiting.append(job)
        self.queued_tokens += job.isl
        if not ready.chunk:
            self._give(ready, ready.waiting)

    def _in_turn(self) -> PrefillWorker | None:
        """The next ready worker in turn; None without one: the request then waits at the router."""
        ready = [w for w in self.workers.values() if w.state is WorkerState.READY and isinstance(w, PrefillWorker)]
        if not ready:
            return None
        self._turn += 1
        return ready[self._turn % len(ready)]

    def _give(self, worker: PrefillWorker, queue: deque[Job]) -> None:
        """Start the worker's next chunk with prompts of ``queue``."""
        before = len(queue)
        begun = worker.begun
        worker.start(queue)
        taken = before - len(queue)
        self.queued_tokens -= sum(job.isl for job, _ in worker.chunk if job is not begun) if taken else 0

    def dispatch(self) -> None:
        queue, free = self.queue, self._free
        while queue and free:
            worker = free.popleft()
            if worker.state is not WorkerState.READY or worker.chunk:
                continue
            self._give(worker, queue)

    def waiting(self) -> int:
        kept = sum(len(w.waiting) for w in self.workers.values() if isinstance(w, PrefillWorker))
        return len(self.queue) + kept

    def running(self) -> int:
        return sum(w.running for w in self.workers.values() if isinstance(w, PrefillWorker))


class DecodePool(Pool):
    """Hands out requests one by one to the worker with the least KV cache in use. Also for aggregated workers."""

    def __init__(self, spec: PoolSpec, around: PoolSurroundings, done: Callable[[Job], None]) -> None:
        super().__init__(spec, around)
        law = around.law
        if law.decode is None or (spec.role is Role.AGGREGATED and law.prefill is None):
            raise ValueError(f"pool {spec.pool}: the profile lacks a part that {spec.role} workers need")
        self._law = law
        self._decode = law.decode
        self._done = done
        self._kind = AggregatedWorker if spec.role is Role.AGGREGATED else DecodeWorker

    @property
    def max_kv_tokens(self) -> int:
        """KV capacity of one worker."""
        return self._decode.max_kv_tokens

    def build(self, slot: WorkerSlot) -> Worker:
        return self._kind(slot, self._decode, self._law.prefill, self.frontend, self._done, self.enqueue_front)

    def dispatch(self) -> None:
        queue = self.queue
        while queue:
            worker = self._worker_for(queue[0])
            if worker is None:
                return
            job = queue.popleft()
            self.queued_tokens -= job.isl
            worker.join(job)

    def _worker_for(self, job: Job) -> DecodeWorker | None:
        """The ready worker with room and the least KV cache in use (as of its last change); None without one."""
        best: DecodeWorker | None = None
        best_tokens = float("inf")
        for worker in self.workers.values():
            tokens = worker.kv_tokens  # type: ignore[attr-defined]
            if tokens < best_tokens and worker.state is WorkerState.READY:
                assert isinstance(worker, DecodeWorker)  # noqa: S101 - made above
                if worker.has_room(job):
                    best, best_tokens = worker, tokens
        return best

    def running(self) -> int:
        return sum(w.batch for w in self.workers.values() if isinstance(w, DecodeWorker))

    def kv_usage(self) -> float | None:
        """Mean KV-cache use of ready workers, 0..1; None without any."""
        used = [w.kv_usage for w in self.workers.values() if isinstance(w, DecodeWorker) and w.state == "ready"]
        return sum(used) / len(used) if used else None
