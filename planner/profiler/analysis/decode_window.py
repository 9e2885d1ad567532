"""ITL of requests that decode together, from the instants at which their tokens arrived. Pure.

Only the window in which every request decodes counts: it begins when the last request has its first token, so no
prefill is in it, and ends with the first request that is complete.
"""

from __future__ import annotations

import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_GAPS = 4
"""Fewer gaps between tokens than this in the window are no measurement."""


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """One answer: when its request was sent and when each piece of it arrived, in seconds of one clock.

    ``cached_tokens``: how much of the prompt was in the prefix cache; None where the engine does not say.
    """

    sent_s: float
    piece_s: tuple[float, ...]
    prompt_tokens: int
    answer_tokens: int
    cached_tokens: int | None = None

    @property
    def ttft_ms(self) -> float:
        """Milliseconds from the request to its first token."""
        return (self.piece_s[0] - self.sent_s) * 1000.0


@dataclass(frozen=True, slots=True)
class DecodeWindow:
    """``together``: the most requests that decoded at once. ``itl_ms``: None where they never all did.

    ``begin_s`` and ``end_s``: between them every request decodes; the same instant where they never all did.
    """

    together: int
    itl_ms: float | None
    begin_s: float
    end_s: float


def decode_window(answers: Sequence[StreamedAnswer]) -> DecodeWindow:
    """What one run of simultaneous requests shows. The window is centred on each answer's middle where it can be, so
    that its mean context is ``isl + osl / 2``. Raises ValueError without answers."""
    if not answers or not all(answer.piece_s for answer in answers):
        raise ValueError("no answers, or one without a token")
    together = _together(answers)
    begin_s = max(answer.piece_s[0] for answer in answers)
    end_s = min(answer.piece_s[-1] for answer in answers)
    if together < len(answers):
        return DecodeWindow(together, None, begin_s, begin_s)
    each = [_itl_ms(answer, begin_s, end_s) for answer in answers]
    found = [itl for itl in each if itl is not None]
    return DecodeWindow(together, statistics.mean(found) if len(found) == len(each) else None, begin_s, end_s)


def _together(answers: Sequence[StreamedAnswer]) -> int:
    """The most answers that were on their way at one instant."""
    begins = sorted(answer.piece_s[0] for answer in answers)
    ends = sorted(answer.piece_s[-1] for answer in answers)
    return max(bisect_right(begins, at_s) - bisect_left(ends, at_s) for at_s in begins)


def _itl_ms(answer: StreamedAnswer, begin_s: float, end_s: float) -> float | None:
    first, last = bisect_left(answer.piece_s, begin_s), bisect_right(answer.piece_s, end_s) - 1
    cut = max(first, len(answer.piece_s) - 1 - last)
    if last - first >= 2 * LEAST_GAPS and len(answer.piece_s) - 1 - 2 * cut >= LEAST_GAPS:
        first, last = cut, len(answer.piece_s) - 1 - cut
    if last - first < LEAST_GAPS:
        return None
    tokens_per_piece = answer.answer_tokens / len(answer.piece_s)
    return _gap_s(answer.piece_s[first : last + 1]) / tokens_per_piece * 1000.0


def _gap_s(instants: Sequence[float]) -> float:
    """Seconds between two pieces, by the median of the spans of three quarters of the window.

    Its two ends alone would give both instants' lateness to every token: a process that is scheduled late sees a
    piece late, and not the ones after it. Shorter spans would give each step's own noise more weight.
    """
    gaps = 3 * len(instants) // 4
    return statistics.median(late - early for early, late in zip(instants, instants[gaps:], strict=False)) / gaps
