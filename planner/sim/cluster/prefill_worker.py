"""A prefill worker: computes prompts in chunks of the engine's token budget and passes complete ones on.

Chunked prefill: a chunk (``max_num_batched_tokens``) holds whole prompts and possibly, at its end, part of one, which
stays with this worker. Prompts that end in one chunk are done together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from planner.sim.cluster.engine_timing import PrefillLaw
from planner.sim.cluster.job import Job
from planner.sim.cluster.prefix_cache import PrefixCache
from planner.sim.cluster.worker import Worker, WorkerSlot, WorkerState

Part = tuple[Job, int]
"""A prompt, and the number of its tokens in one chunk."""


def take_chunk(
    begun: Job | None, queue: deque[Job], max_tokens: int, max_prompts: int, cache: PrefixCache | None = None
) -> list[Part]:
    """The next chunk: the rest of ``begun``, then prompts removed from ``queue`` while there is room.

    Only the last prompt may be partial.
    """
    chunk: list[Part] = []
    left = max_tokens
    job = begun
    while left > 0 and len(chunk) < max_prompts:
        if job is None:
            if not queue:
                break
            job = queue.popleft()
            if cache is not None:
                job.cached_tokens = cache.use(job.hash_ids, job.isl)
        part = min(left, to_compute(job) - job.prefilled_tokens)
        job.prefilled_tokens += part
        chunk.append((job, part))
        left -= part
        job = None
    return chunk


def to_compute(job: Job) -> int:
    """Tokens of a prompt that are not cached; at least one, because the last token's logits are needed."""
    return max(job.isl - job.cached_tokens, 1)


class PrefillWorker(Worker):
    """``left_s`` is the remaining work of the chunk at ``at_s``, in seconds at full speed."""

    __slots__ = ("at_s", "begun", "cache", "chunk", "done", "law", "left_s", "max_prompts", "waiting")

    def __init__(
        self,
        slot: WorkerSlot,
        law: PrefillLaw,
        done: Callable[[list[Job]], None],
        max_prompts: int,
        cache: PrefixCache | None,
    ) -> None:
        super().__init__(slot)
        self.law = law
        self.done = done
        self.max_prompts = max_prompts
        self.cache = cache
        self.chunk: list[Part] = []
        """The chunk being computed."""
        self.begun: Job | None = None
        """A prompt that is partly computed here."""
        self.waiting: deque[Job] = deque()
        """Prompts that the round-robin router has assigned to this worker."""
        self.left_s = 0.0
        self.at_s = 0.0

    def start(self, queue: deque[Job]) -> None:
        """Begin the next chunk with prompts from ``queue``. The worker must be free, and there must be a prompt."""
        now_s = self.events.now_s
        self.chunk = take_chunk(self.begun, queue, self.law.max_batched_tokens, self.max_prompts, self.cache)
        for job, _ in self.chunk:
            if job.prefill_start_s < 0:
                job.prefill_start_s = now_s
        last = self.chunk[-1][0]
        self.begun = last if last.prefilled_tokens < to_compute(last) else None
        self.left_s = self.law.chunk_s([(to_compute(job), part) for job, part in self.chunk])
        self.at_s = now_s
        self.set_share(1.0)
        self._schedule()

    def _schedule(self) -> None:
        self.version += 1
        self.events.at(self.at_s + self.left_s / self.speed, self._finish, self.version)

    def _finish(self, version: int) -> None:
        if version != self.version or not self.chunk:
            return
        now_s = self.events.now_s
        self.busy_s += now_s - self.at_s
        self.at_s = now_s
        whole = [job for job, _ in self.chunk if job is not self.begun]
        self.chunk = []
        for job in whole:
            job.prefill_end_s = now_s
        if whole:
            self.done(whole)
        if self.state is WorkerState.DRAINING and not self.busy:
            self.owner.emptied(self)
            return
        self.owner.idle(self)
        if not self.chunk:
            self.set_share(0.0)

    def change_speed(self, speed: float) -> None:
        now_s = self.events.now_s
        if self.chunk:
            self.busy_s += now_s - self.at_s
            self.left_s = max(0.0, self.left_s - (now_s - self.at_s) * self.speed)
            self.at_s = now_s
        self.speed = speed
        if self.chunk:
            self._schedule()

    def backlog(self) -> float:
        queued_s = sum(self.law.alone_s(job.isl) for job in self.waiting)
        return queued_s + (self.left_s if self.chunk else 0.0)

    @property
    def waiting_tokens(self) -> int:
        return sum(job.isl for job in self.waiting)

    @property
    def busy(self) -> bool:
        return bool(self.chunk or self.begun or self.waiting)

    def abandon(self) -> list[Job]:
        self.version += 1
        jobs = [job for job, _ in self.chunk]
        if self.begun is not None and self.begun not in jobs:
            jobs.append(self.begun)
        jobs += self.waiting
        for job in jobs:
            job.prefilled_tokens = job.cached_tokens = 0
        self.chunk, self.begun = [], None
        self.waiting.clear()
        return jobs

    @property
    def running(self) -> int:
        """Prompts in the present chunk."""
        return len(self.chunk)
