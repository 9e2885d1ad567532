"""Which points an estimated profile has: steps as in Dynamo's profiler, loads denser where few requests run. Pure.

An estimate costs no GPU time, so the sweep is wider than a measured one.
"""

from __future__ import annotations

from dataclasses import dataclass

from planner.profiler.analysis.sweep import SHORTEST_ISL, Point, spread

ANSWER_TOKENS = 500
"""ITL is the mean over an answer of this length."""
ROOM_FOR_ANSWER = 512
"""Tokens of the context that the longest prompt leaves free."""
ISL_STEPS, CONTEXT_STEPS, LOADS = 16, 6, 12
FEW = (1, 2, 4, 8, 16)
"""Loads at which ITL bends: kernels change with small batches."""
SHORTEST_CONTEXT = 1024


@dataclass(frozen=True, slots=True)
class AskedPoint:
    """A point with the length of its answer in tokens (1 for prefill)."""

    point: Point
    answer_tokens: int

    @property
    def context(self) -> float:
        """Tokens: the prompt for prefill, the mean context of the answer for decode."""
        return self.point.isl if self.point.phase == "prefill" else self.point.isl + self.answer_tokens / 2


@dataclass(frozen=True, slots=True)
class AssumedEngine:
    """Limits of the engine that is estimated, in tokens and requests at once."""

    max_context: int
    max_kv_tokens: int
    max_in_flight: int

    def most(self, isl: int, answer_tokens: int) -> int:
        """How many requests of these lengths run at once; 0 where not even one does."""
        return min(self.max_in_flight, self.max_kv_tokens // (isl + answer_tokens))


def prefill_sweep(tp: int, max_context: int) -> tuple[AskedPoint, ...]:
    """TTFT by input length. Raises ValueError for a context that is too short for a sweep."""
    _check(max_context)
    end = max_context - ROOM_FOR_ANSWER
    isls = range(SHORTEST_ISL, end, (end - SHORTEST_ISL) // ISL_STEPS)
    return tuple(AskedPoint(Point(tp, "prefill", isl), 1) for isl in isls)


def decode_sweep(tp: int, engine: AssumedEngine) -> tuple[AskedPoint, ...]:
    """ITL by context and requests in flight. Raises ValueError for a context that is too short for a sweep."""
    _check(engine.max_context)
    end = engine.max_context - ANSWER_TOKENS
    asked: list[AskedPoint] = []
    for isl in range(SHORTEST_ISL, end, end // CONTEXT_STEPS):
        asked += _loads(tp, isl, ANSWER_TOKENS, engine)
    return tuple(asked)


def target_sweep(tp: int, engine: AssumedEngine, isl: int, osl: int) -> tuple[AskedPoint, ...]:
    """The points that choose between TP sizes, at the targets' own lengths.

    Raises ValueError where the engine does not hold one request of these lengths.
    """
    if isl + osl > engine.max_context or not engine.most(isl, osl):
        raise ValueError(
            f"TP {tp}: isl {isl} and osl {osl} do not fit: the context is {engine.max_context} tokens, the KV cache "
            f"{engine.max_kv_tokens}"
        )
    return (AskedPoint(Point(tp, "prefill", isl), 1), *_loads(tp, isl, osl, engine))


def _loads(tp: int, isl: int, answer_tokens: int, engine: AssumedEngine) -> list[AskedPoint]:
    most = engine.most(isl, answer_tokens)
    loads = sorted({load for load in FEW if load <= most}.union(spread(1, most, LOADS)))
    return [AskedPoint(Point(tp, "decode", isl, load), answer_tokens) for load in loads]


def _check(max_context: int) -> None:
    if max_context < SHORTEST_CONTEXT:
        raise ValueError(f"max context length {max_context}: an estimate needs at least {SHORTEST_CONTEXT} tokens")
