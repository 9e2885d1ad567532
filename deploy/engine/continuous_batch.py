"""Which requests an engine computes in each step, and how long a step takes. Pure: time is an argument.

Continuous batching with chunked prefill, as in vLLM: every running request gains a token a step, and what is left of
the step's token budget goes to prompts in order of arrival. Times are the plant's
(`planner.sim.cluster.engine_timing`): ``a + b * batch + c * kv_tokens`` for the running requests, the measured prefill
time for prompts; where a step has both, ``a`` (reading the weights) is part of the prefill time already.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from deploy.engine.kv_blocks import BLOCK_TOKENS, Holding, KvBlocks
from planner.sim.cluster.engine_timing import EngineLaw
from planner.sim.cluster.sim_gpu import batch_share

WATERMARK = 0.01
"""Share of the KV blocks that admissions leave free, so that running requests can grow."""


@dataclass(eq=False, slots=True)
class Generation:
    """One request inside the engine. Instants are seconds of the engine's clock, -1 where it has not happened yet."""

    prompt_tokens: int
    answer_tokens: int
    hashes: tuple[int, ...] = ()
    finish_reason: str = "length"
    """Why the answer ends after ``answer_tokens``: ``stop`` or ``length``."""
    remote_prefill: bool = False
    """The prompt's KV entries come from a prefill worker, so nothing of it is computed here."""
    arrived_s: float = 0.0
    admitted_s: float = -1.0
    first_s: float = -1.0
    last_s: float = -1.0
    done: int = 0
    """Tokens of the answer so far."""
    cached_tokens: int = 0
    preemptions: int = 0
    to_compute: int = 0
    """Tokens of the prompt (after a preemption also of the answer) that are still to be computed."""
    begun_with: int = 0
    """What ``to_compute`` was when the request was admitted."""
    holding: Holding | None = field(default=None, repr=False)

    @property
    def kv_tokens(self) -> int:
        """Tokens in the KV cache once the prompt is computed."""
        return self.prompt_tokens + self.done


@dataclass(frozen=True, slots=True)
class Step:
    """One step: the requests that gain a token, and prompts with the number of tokens that are computed of each.

    ``duration_s`` is at full speed. ``share`` (0..1): draw of the work, of the most that its phase draws.
    """

    decoding: tuple[Generation, ...]
    chunks: tuple[tuple[Generation, int], ...]
    duration_s: float
    share: float


class ContinuousBatch:
    """The requests of one engine: waiting, and running."""

    def __init__(self, law: EngineLaw, kv: KvBlocks) -> None:
        if law.prefill is None or law.decode is None:
            raise ValueError("an engine needs the times of both phases")
        self._prefill, self._decode = law.prefill, law.decode
        self.kv = kv
        self.waiting: deque[Generation] = deque()
        self.running: list[Generation] = []
        """In order of admission."""
        self.preempted = 0
        self._leave = max(1, round(WATERMARK * kv.capacity))

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self.running)

    def fits(self, prompt_tokens: int, answer_tokens: int) -> bool:
        """Whether a request could ever run here: its whole context has to fit into the cache."""
        return prompt_tokens + answer_tokens <= (self.kv.capacity - self._leave) * BLOCK_TOKENS

    def submit(self, generation: Generation) -> None:
        """Queue a request. Raises ValueError for one that never fits."""
        if not self.fits(generation.prompt_tokens, generation.answer_tokens):
            raise ValueError("the request's context is larger than the KV cache")
        self.waiting.append(generation)

    def abort(self, generation: Generation) -> bool:
        """Forget a request and free its blocks. False where it had ended already."""
        if generation in self.waiting:
            self.waiting.remove(generation)
            return True
        if generation in self.running:
            self._leave_batch(generation)
            return True
        return False

    def begin(self, now_s: float) -> Step | None:
        """The next step; None where nothing is to be done."""
        decoding = self._room_for_growth()
        self._admit(now_s, decoding)
        decoding = [one for one in self.running if not one.to_compute]
        budget = max(1, self._prefill.max_batched_tokens - len(decoding))
        chunks = []
        for generation in self.running:
            part = min(budget, generation.to_compute)
            if part:
                chunks.append((generation, part))
                budget -= part
        if not decoding and not chunks:
            return None
        share = 1.0 if chunks else batch_share(len(decoding))
        return Step(tuple(decoding), tuple(chunks), self._duration_s(decoding, chunks), share)

    def finish(self, step: Step, now_s: float) -> list[Generation]:
        """End a step. Returns the requests that gained a token; those that are complete have left the batch."""
        gained = [one for one in step.decoding if one in self.running]
        for generation, part in step.chunks:
            if generation not in self.running:
                continue
            generation.to_compute -= part
            if not generation.to_compute:
                gained.append(generation)
        for generation in gained:
            generation.done += 1
            generation.last_s = now_s
            if generation.first_s < 0:
                generation.first_s = now_s
            if generation.done >= generation.answer_tokens:
                self._leave_batch(generation)
        return gained

    def _duration_s(self, decoding: list[Generation], chunks: list[tuple[Generation, int]]) -> float:
        law = self._decode
        kv_tokens = sum(one.kv_tokens for one in decoding)
        tokens_s = law.iteration_s(len(decoding), kv_tokens) if decoding else 0.0
        if not chunks:
            return tokens_s
        prompts_s = self._prefill.chunk_s([(one.begun_with, part) for one, part in chunks])
        return prompts_s + max(0.0, tokens_s - law.a)

    def _room_for_growth(self) -> list[Generation]:
        """The running requests that can gain a token; the newest are preempted where the cache is full."""
        growing = [one for one in self.running if not one.to_compute]
        while growing:
            stuck = next((one for one in growing if not self._grown(one)), None)
            if stuck is None:
                break
            newest = self.running[-1]
            self._preempt(newest)
            growing = [one for one in growing if one is not newest]
        return growing

    def _grown(self, generation: Generation) -> bool:
        return generation.holding is not None and self.kv.grow(generation.holding, generation.kv_tokens + 1)

    def _preempt(self, generation: Generation) -> None:
        """Take a request's blocks away; it waits in front, and computes its prompt and its answer so far again."""
        self._leave_batch(generation)
        generation.preemptions += 1
        generation.remote_prefill = False
        self.preempted += 1
        self.waiting.appendleft(generation)

    def _admit(self, now_s: float, decoding: list[Generation]) -> None:
        seats = self._decode.max_seqs - len(self.running)
        budget = self._prefill.max_batched_tokens - len(decoding) - sum(one.to_compute for one in self.running)
        while self.waiting and seats > 0 and budget > 0:
            generation = self.waiting[0]
            # One block more, so that it can gain a token in the step that admits it.
            holding = self.kv.take(
                generation.hashes, generation.kv_tokens + 1, leave=self._leave if self.running else 0
            )
            if holding is None:
                return
            self.waiting.popleft()
            generation.holding = holding
            generation.cached_tokens = min(holding.cached_tokens, generation.kv_tokens - 1)
            # At least one token is computed, because the last one's logits are needed.
            left = 0 if generation.remote_prefill else max(1, generation.kv_tokens - generation.cached_tokens)
            generation.to_compute = generation.begun_with = left
            if generation.admitted_s < 0:
                generation.admitted_s = now_s
            self.running.append(generation)
            seats -= 1
            budget -= left

    def _leave_batch(self, generation: Generation) -> None:
        self.running.remove(generation)
        if generation.holding is not None:
            self.kv.release(generation.holding)
            generation.holding = None
