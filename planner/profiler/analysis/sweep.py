"""Which points a profile needs: input lengths for prefill; input lengths and requests in flight for decode. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

BLOCK_TOKENS = 16
"""Engines hand out their KV cache in blocks of this many tokens; a request's last block is partly empty."""
KV_SHARE = 0.95
"""Share of the KV cache that a sweep fills: engines keep some of it free and would preempt requests beyond."""
SHORTEST_ISL = 100
"""As in Dynamo's own sweeps."""


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """What the engine takes: tokens of a context, tokens in the KV cache, and requests that run at once."""

    max_context: int
    max_kv_tokens: int
    max_in_flight: int

    def in_flight(self, isl: int, answer_tokens: int) -> int:
        """How many requests of these lengths the KV cache holds at once; 0 where not even one fits."""
        blocks = -(-(isl + answer_tokens) // BLOCK_TOKENS)
        return min(self.max_in_flight, int(KV_SHARE * self.max_kv_tokens) // (blocks * BLOCK_TOKENS))


@dataclass(frozen=True, slots=True)
class SweepSize:
    """How many input lengths, contexts and loads a sweep has, and how long answers are while ITL is measured."""

    isls: int
    contexts: int
    loads: int
    answer_tokens: int


FULL = SweepSize(isls=16, contexts=6, loads=7, answer_tokens=200)
QUICK = SweepSize(isls=5, contexts=3, loads=4, answer_tokens=40)


@dataclass(frozen=True, slots=True)
class Point:
    """One point: a phase of an engine of ``tp`` GPUs at an input length, with requests in flight (1 for prefill).

    ``cap_watts``: the power limit of each of its GPUs; None where no run of this profile sets limits.
    """

    tp: int
    phase: Literal["prefill", "decode"]
    isl: int
    in_flight: int = 1
    cap_watts: float | None = None

    def __str__(self) -> str:
        load = f", {self.in_flight} in flight" if self.phase == "decode" else ""
        cap = "" if self.cap_watts is None else f", {self.cap_watts:g} W"
        return f"TP {self.tp} {self.phase} isl {self.isl}{load}{cap}"


def target_points(tp: int, limits: EngineLimits, size: SweepSize, isl: int, osl: int) -> tuple[Point, ...]:
    """The points that choose between TP sizes: the target's own lengths, decode from one request to a full cache.

    Raises ValueError where the engine does not hold one request of these lengths.
    """
    if isl + osl > limits.max_context or not limits.in_flight(isl, osl):
        raise ValueError(
            f"isl {isl} and osl {osl} do not fit: the engine's context is {limits.max_context} tokens, its KV cache "
            f"{limits.max_kv_tokens}"
        )
    start = decode_isl(isl, osl, size, limits.max_context)
    if start + size.answer_tokens > limits.max_context:
        raise ValueError(
            f"isl {isl} and osl {osl} leave no room for the {size.answer_tokens} tokens of a measured answer: the "
            f"engine's context is {limits.max_context} tokens; give it a longer one, or ask for a shorter isl"
        )
    loads = spread(1, limits.in_flight(start, size.answer_tokens), size.loads)
    return (Point(tp, "prefill", isl), *(Point(tp, "decode", start, load) for load in loads))


def decode_isl(isl: int, osl: int, size: SweepSize, max_context: int) -> int:
    """The prompt whose measured answer has the target's mean context ``isl + osl / 2``, or the nearest that fits.

    An answer is measured for longer than a short ``osl``. Near the longest context it would not fit, so the prompt is
    shorter then, by less than half an answer.
    """
    return max(1, min(isl + (osl - size.answer_tokens) // 2, max_context - size.answer_tokens))


def prefill_points(tp: int, limits: EngineLimits, size: SweepSize) -> tuple[Point, ...]:
    """TTFT by input length, from the shortest to the whole context."""
    longest = limits.max_context - 1
    return tuple(Point(tp, "prefill", isl) for isl in spread(min(SHORTEST_ISL, longest), longest, size.isls))


def decode_points(tp: int, limits: EngineLimits, size: SweepSize) -> tuple[Point, ...]:
    """ITL by context, and by requests in flight from one to what the KV cache holds."""
    longest = limits.max_context - size.answer_tokens
    points = []
    for isl in spread(min(SHORTEST_ISL, longest), longest, size.contexts):
        most = limits.in_flight(isl, size.answer_tokens)
        points += [Point(tp, "decode", isl, load) for load in spread(1, most, size.loads)]
    return tuple(points)


def under_caps(points: Iterable[Point], caps_watts: Sequence[float]) -> tuple[Point, ...]:
    """Every point under every cap, one cap after the other; the points themselves where there are no caps."""
    if not caps_watts:
        return tuple(points)
    kept = tuple(points)
    return tuple(replace(point, cap_watts=watts) for watts in caps_watts for point in kept)


def narrowed(points: Iterable[Point], tp: int, together: int) -> tuple[Point, ...]:
    """The decode points of engines of ``tp`` GPUs that run ``together`` requests at once: larger ones become that."""
    kept: dict[Point, None] = {}
    for point in points:
        over = point.tp == tp and point.phase == "decode" and point.in_flight > together
        kept[replace(point, in_flight=together) if over else point] = None
    return tuple(kept)


def spread(least: int, most: int, count: int) -> tuple[int, ...]:
    """At most ``count`` different whole numbers from ``least`` to ``most``, evenly apart, none if ``most`` is below."""
    if most < least or least < 1:
        return ()
    if count == 1 or most == least:
        return (most,)
    step = (most - least) / (count - 1)
    return tuple(dict.fromkeys(round(least + i * step) for i in range(count)))
