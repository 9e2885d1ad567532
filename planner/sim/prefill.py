"""A prefill worker: takes a batch of prompts, computes them, hands them on.

A batch is what fits the engine's token budget (``max_num_batched_tokens``); a longer prompt is computed alone, in
chunks that take as long as the whole. Prompts of one batch finish together and pay the fixed part of a prefill once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from planner.domain.power import PowerCurve
from planner.sim.engine import PrefillLaw
from planner.sim.events import Events
from planner.sim.gpu import SimGpu
from planner.sim.job import Job
from planner.sim.worker import Owner, Worker, WorkerState


def take_batch(queue: deque[Job], max_tokens: int) -> list[Job]:
    """The first jobs of ``queue`` that fit ``max_tokens`` together, one at least."""
    batch = [queue.popleft()]
    tokens = batch[0].isl
    while queue and tokens + queue[0].isl <= max_tokens:
        job = queue.popleft()
        tokens += job.isl
        batch.append(job)
    return batch


class PrefillWorker(Worker):
    """``left_s`` is the work left at ``at_s``, in seconds at full speed."""

    __slots__ = ("at_s", "batch", "done", "law", "left_s")

    def __init__(
        self,
        worker: str,
        pool: str,
        gpus: Sequence[SimGpu],
        curve: PowerCurve,
        events: Events,
        owner: Owner,
        law: PrefillLaw,
        done: Callable[[list[Job]], None],
    ) -> None:
        super().__init__(worker, pool, gpus, curve, events, owner)
        self.law = law
        self.done = done
        self.batch: list[Job] = []
        self.left_s = 0.0
        self.at_s = 0.0

    def work_s(self, batch: list[Job]) -> float:
        """Seconds at full speed."""
        alone_s, once_s = self.law.alone_s, self.law.once_s
        return sum(alone_s(max(job.isl - job.cached_tokens, 1)) for job in batch) - once_s * (len(batch) - 1)

    def start(self, batch: list[Job]) -> None:
        """Begin ``batch``; the worker must be ready and free."""
        now_s = self.events.now_s
        for job in batch:
            job.prefill_start_s = now_s
        self.batch = batch
        self.left_s = self.work_s(batch)
        self.at_s = now_s
        self.set_share(1.0)
        self._schedule()

    def _schedule(self) -> None:
        self.version += 1
        self.events.at(self.at_s + self.left_s / self.speed, self._finish, self.version)

    def _finish(self, version: int) -> None:
        if version != self.version or not self.batch:
            return
        now_s = self.events.now_s
        self.busy_s += now_s - self.at_s
        self.at_s = now_s
        batch, self.batch = self.batch, []
        for job in batch:
            job.prefill_end_s = now_s
        self.done(batch)
        if self.state is WorkerState.DRAINING:
            self.owner.emptied(self)
            return
        self.owner.idle(self)
        if not self.batch:
            self.set_share(0.0)

    def change_speed(self, speed: float) -> None:
        now_s = self.events.now_s
        if self.batch:
            self.busy_s += now_s - self.at_s
            self.left_s = max(0.0, self.left_s - (now_s - self.at_s) * self.speed)
            self.at_s = now_s
        self.speed = speed
        if self.batch:
            self._schedule()

    def backlog(self) -> float:
        return self.left_s if self.batch else 0.0

    @property
    def busy(self) -> bool:
        return bool(self.batch)

    def abandon(self) -> list[Job]:
        self.version += 1
        batch, self.batch = self.batch, []
        return batch
