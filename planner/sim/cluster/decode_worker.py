"""A decode worker: continuous batching under a KV capacity, and the aggregated worker built on it.

Every running request gains one token an iteration, which takes ``a + b * batch + c * kv_tokens``. Between two changes
of the batch the KV cache grows by ``batch`` tokens an iteration, so ``j`` iterations take
``j * A + c * batch * j**2 / 2`` seconds with ``A`` the first one's time: progress is a closed form and no event is
needed for a token.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_right
from collections.abc import Callable

from planner.sim.cluster.engine_timing import DecodeLaw, PrefillLaw
from planner.sim.cluster.frontend import Frontend
from planner.sim.cluster.job import Job
from planner.sim.cluster.sim_gpu import batch_share
from planner.sim.cluster.worker import Worker, WorkerSlot, WorkerState

WATERMARK = 0.01
"""Share of the KV cache that admissions leave free, so that running requests can grow."""
ALMOST = 1e-6
"""Iterations: two requests this close finish together."""


class TokenGaps:
    """The gaps between tokens of one batch, and the longest that any of its answers has seen.

    All sequences of a batch wait for the same iterations, so each gap is noted once. Only gaps that no later one
    exceeds are kept: a row that falls, searched by bisection. ``noted`` counts all gaps so far; an answer remembers it
    when it joins.
    """

    __slots__ = ("_longest_s", "_numbers", "noted")

    def __init__(self) -> None:
        self.noted = 0
        self._numbers: list[int] = []
        self._longest_s: list[float] = []

    def note(self, gap_s: float) -> None:
        """All sequences of the batch have waited ``gap_s`` seconds for a token."""
        self.noted += 1
        while self._longest_s and self._longest_s[-1] <= gap_s:
            self._longest_s.pop()
            self._numbers.pop()
        self._longest_s.append(gap_s)
        self._numbers.append(self.noted)

    def longest_s(self, since: int) -> float:
        """The longest gap noted after the first ``since`` ones; 0 for none."""
        place = bisect_right(self._numbers, since)
        return self._longest_s[place] if place < len(self._numbers) else 0.0

    def clear(self) -> None:
        """Forget all gaps: the batch is empty."""
        self._numbers.clear()
        self._longest_s.clear()


class DecodeWorker(Worker):
    """``iterations`` and ``kv_tokens`` are true at ``at_s``, which lies ahead of now while prompts are computed."""

    __slots__ = (
        "at_s",
        "batch",
        "done",
        "frontend",
        "gaps",
        "heap",
        "iterations",
        "kv_tokens",
        "law",
        "next_kind_full",
        "preempted",
        "prefill",
    )

    def __init__(
        self,
        slot: WorkerSlot,
        law: DecodeLaw,
        prefill: PrefillLaw | None,
        frontend: Frontend,
        done: Callable[[Job], None],
        preempted: Callable[[Job], None],
    ) -> None:
        super().__init__(slot)
        self.law = law
        self.prefill = prefill
        self.frontend = frontend
        self.done = done
        self.preempted = preempted
        self.heap: list[tuple[float, int, Job]] = []
        self.batch = 0
        self.iterations = 0.0
        self.kv_tokens = 0.0
        self.at_s = 0.0
        self.next_kind_full = False
        self.gaps = TokenGaps()

    def has_room(self, job: Job) -> bool:
        """Whether ``job`` may join now. An empty worker takes whatever fits its cache at all."""
        if self.batch >= self.law.max_seqs:
            return False
        need = job.isl + job.done_tokens
        if self.batch == 0:
            return need <= self.law.max_kv_tokens
        return self.kv_tokens + need <= self.law.max_kv_tokens * (1.0 - WATERMARK)

    def join(self, job: Job) -> None:
        """Admit ``job``: its first token comes with the next iteration, which begins when the present one ends."""
        self.catch_up()
        now_s = self.events.now_s
        if self.batch == 0:
            self.at_s = max(self.at_s, now_s)
        if job.preemptions and self.prefill is not None:
            self.stall(self.prefill.alone_s(job.isl + job.done_tokens))
        boundary = math.ceil(self.iterations - ALMOST) if self.batch else self.iterations
        self._seat(job, boundary)
        if job.first_s < 0:
            left = boundary + 1.0 - self.iterations
            self._first(job, self.at_s + left * self.law.iteration_s(self.batch, self.kv_tokens) / self.speed)
        self._after_change()

    def _seat(self, job: Job, begin: float) -> None:
        """Add ``job`` to the batch; its first iteration begins at iteration count ``begin``."""
        # Unique over all workers: a preempted job may be elsewhere while its old entry is still in this heap.
        job.seat = self.events.ticket()
        job.admitted_s = self.events.now_s
        job.gaps_before = self.gaps.noted
        if job.last_token_s >= 0.0:
            job.longest_gap_s = max(job.longest_gap_s, max(self.at_s, job.admitted_s) - job.last_token_s)
            job.last_token_s = -1.0
        job.finish_at = begin + job.osl - job.done_tokens
        heapq.heappush(self.heap, (job.finish_at, job.seat, job))
        self.batch += 1
        self.kv_tokens += job.isl + job.done_tokens

    def _first(self, job: Job, when_s: float) -> None:
        job.first_s = when_s
        self.frontend.ttft.observe(when_s - job.t_s)

    def stall(self, work_s: float) -> None:
        """Produce no tokens for ``work_s`` seconds of full-speed work: the engine computes a prompt."""
        self.at_s = max(self.at_s, self.events.now_s) + work_s / self.speed
        if self.batch:
            self.gaps.note(work_s / self.speed + self.law.iteration_s(self.batch, self.kv_tokens) / self.speed)

    def _leaves(self, job: Job) -> None:
        """``job`` leaves the batch, finished or not."""
        job.seat = -1
        job.longest_gap_s = max(job.longest_gap_s, self.gaps.longest_s(job.gaps_before))

    def catch_up(self) -> None:
        """Advance the batch to now."""
        now_s = self.events.now_s
        elapsed_s = now_s - self.at_s
        if elapsed_s <= 0:
            return
        self.at_s = now_s
        batch = self.batch
        if batch == 0:
            return
        self.busy_s += elapsed_s
        work_s = elapsed_s * self.speed
        first_s = self.law.iteration_s(batch, self.kv_tokens)
        growth = self.law.c * batch
        steps = 2.0 * work_s / (first_s + math.sqrt(first_s * first_s + 2.0 * growth * work_s))
        self.iterations += steps
        self.kv_tokens += batch * steps
        if steps > 0:
            self.frontend.gaps.observe(elapsed_s / steps, batch * steps)
            self.gaps.note(elapsed_s / steps)

    def _after_change(self) -> None:
        """Update load, speed and the next event after the batch has changed."""
        self.set_share(batch_share(self.batch))
        self._schedule()

    def _schedule(self) -> None:
        self.version += 1
        heap = self.heap
        while heap and heap[0][2].seat != heap[0][1]:
            heapq.heappop(heap)
        if not heap:
            return
        finish = heap[0][0] - self.iterations
        full = (self.law.max_kv_tokens - self.kv_tokens) / self.batch
        steps = max(min(finish, full), 0.0)
        self.next_kind_full = full < finish
        work_s = steps * self.law.iteration_s(self.batch, self.kv_tokens) + self.law.c * self.batch * steps**2 / 2.0
        start_s = max(self.at_s, self.events.now_s)
        self.events.at(start_s + work_s / self.speed, self._wake, self.version)

    def _wake(self, version: int) -> None:
        if version != self.version:
            return
        self.catch_up()
        if self.next_kind_full and self.batch > 1:
            self._preempt()
        finished = self._pop_finished()
        for job in finished:
            self.done(job)
        if self.batch == 0 and self.state is WorkerState.DRAINING:
            self.version += 1
            self.set_share(0.0)
            self.owner.emptied(self)
            return
        version = self.version
        if finished:
            self.owner.idle(self)
        if version == self.version:
            self._after_change()

    def _pop_finished(self) -> list[Job]:
        finished: list[Job] = []
        heap = self.heap
        while heap and (heap[0][2].seat != heap[0][1] or heap[0][0] <= self.iterations + ALMOST):
            _, seat, job = heapq.heappop(heap)
            if job.seat != seat:
                continue
            self._leaves(job)
            self.batch -= 1
            self.kv_tokens -= job.isl + job.osl
            finished.append(job)
        if self.batch == 0:
            self.kv_tokens = 0.0  # Only rounding is left.
            self.gaps.clear()
        return finished

    def _preempt(self) -> None:
        """The cache is full: preempt the newest request, which waits for another place in a batch."""
        seat, job = max((seat, job) for _, seat, job in self.heap if job.seat == seat)
        del seat
        left = max(job.finish_at - self.iterations, ALMOST)
        self.kv_tokens -= job.isl + (job.osl - left)
        job.done_tokens = min(job.osl - 1, int(job.osl - left))
        job.preemptions += 1
        self._waits_again(job)
        self.batch -= 1
        self.preempted(job)

    def _waits_again(self, job: Job) -> None:
        self._leaves(job)
        job.last_token_s = self.events.now_s

    def change_speed(self, speed: float) -> None:
        self.catch_up()
        ahead_s = self.at_s - self.events.now_s
        if ahead_s > 0:
            self.at_s = self.events.now_s + ahead_s * self.speed / speed
        self.speed = speed
        if self.batch:
            self._schedule()

    def backlog(self) -> float:
        return float(self.batch)

    @property
    def busy(self) -> bool:
        return self.batch > 0

    def abandon(self) -> list[Job]:
        self.catch_up()
        self.version += 1
        jobs = []
        for finish_at, seat, job in self.heap:
            if job.seat == seat:
                job.done_tokens = min(job.osl - 1, max(0, int(job.osl - (finish_at - self.iterations))))
                self._waits_again(job)
                jobs.append(job)
        self.heap, self.batch, self.kv_tokens = [], 0, 0.0
        self.gaps.clear()
        return sorted(jobs, key=lambda job: job.index)

    @property
    def kv_usage(self) -> float:
        """Share of the KV cache in use, 0..1, as of the last change."""
        return self.kv_tokens / self.law.max_kv_tokens


class AggregatedWorker(DecodeWorker):
    """Prefill and decode in one engine: a joining prompt stalls the batch until it is computed.

    Chunked prefill gives the running requests one token a chunk; prompts below the token budget are one chunk.
    """

    __slots__ = ()

    def join(self, job: Job) -> None:
        self.catch_up()
        now_s = self.events.now_s
        law = self.prefill
        assert law is not None  # noqa: S101 - an aggregated pool is built with both laws
        stalled = self.at_s > now_s
        self.at_s = max(self.at_s, now_s)
        if job.prefill_start_s < 0:
            job.prefill_start_s = self.at_s
        work_s = law.alone_s(max(job.isl + job.done_tokens - job.cached_tokens, 1)) - (law.once_s if stalled else 0.0)
        self.stall(work_s)
        self.busy_s += work_s / self.speed
        job.done_tokens = max(job.done_tokens, 1)  # The prompt's computation gives the first token.
        self._seat(job, self.iterations)
        job.prefill_end_s = self.at_s
        if job.first_s < 0:
            self._first(job, self.at_s)
        self.set_share(1.0)
        self._schedule()
        self.events.at(self.at_s, self._prompts_done)

    def _prompts_done(self, _: None) -> None:
        if self.at_s <= self.events.now_s:
            self.set_share(batch_share(self.batch))
