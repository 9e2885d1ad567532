"""What became of requests, and the figures over all of them. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SHARES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """One request. ``late_s``: how long after its time it was sent. ``failure``: why it has no whole answer.

    ``ttft_s`` and ``e2e_s`` from sending to the first and to the last token; ``tokens`` of the answer.
    """

    late_s: float
    ttft_s: float = math.nan
    e2e_s: float = math.nan
    tokens: int = 0
    failure: str = ""

    @property
    def itl_s(self) -> float:
        """Mean time between two tokens; not a number for an answer of one token."""
        return (self.e2e_s - self.ttft_s) / (self.tokens - 1) if self.tokens > 1 else math.nan

    def good(self, ttft_s: float, itl_s: float) -> bool:
        """Whether the answer is whole and within both targets. An answer of one token has no ITL to miss."""
        return not self.failure and self.ttft_s <= ttft_s and not self.itl_s > itl_s


def summary(outcomes: Sequence[RequestOutcome], took_s: float, ttft_ms: float, itl_ms: float) -> dict[str, Any]:
    """The figures of a run; times in milliseconds, None where nothing was measured."""
    whole = [one for one in outcomes if not one.failure]
    good = sum(one.good(ttft_ms / 1000, itl_ms / 1000) for one in outcomes)
    return {
        "requests": len(outcomes),
        "completed": len(whole),
        "failed": dict(Counter(one.failure for one in outcomes if one.failure)),
        "good_requests": good,
        "good_share": good / len(outcomes) if outcomes else None,
        "ttft_target_ms": ttft_ms,
        "itl_target_ms": itl_ms,
        "ttft_ms": _figures([one.ttft_s for one in whole]),
        "itl_ms": _figures([one.itl_s for one in whole]),
        "e2e_ms": _figures([one.e2e_s for one in whole]),
        "late_ms": _figures([one.late_s for one in outcomes]),
        "output_tokens": sum(one.tokens for one in whole),
        "seconds": took_s,
    }


def _figures(seconds: Sequence[float]) -> dict[str, float] | None:
    known = sorted(1000 * one for one in seconds if math.isfinite(one))
    if not known:
        return None
    figures = {"mean": sum(known) / len(known)}
    for share in SHARES:
        figures[f"p{round(100 * share)}"] = known[min(len(known) - 1, math.ceil(share * len(known)) - 1)]
    return figures | {"max": known[-1]}


def as_lines(figures: dict[str, Any]) -> str:
    """The summary as text."""
    share = f" ({figures['good_share']:.1%})" if figures["good_share"] is not None else ""
    targets = f"first token within {figures['ttft_target_ms']:g} ms, the others every {figures['itl_target_ms']:g} ms"
    lines = [
        f"requests   {figures['requests']}, completed {figures['completed']} in {figures['seconds']:.1f} s",
        f"good       {figures['good_requests']}{share}: {targets}",
    ]
    lines += [f"failed     {count}: {why}" for why, count in figures["failed"].items()]
    for name, key in (("TTFT", "ttft_ms"), ("ITL", "itl_ms"), ("whole", "e2e_ms"), ("sent late", "late_ms")):
        if (one := figures[key]) is not None:
            spread = ", ".join(f"{part} {one[part]:.1f}" for part in one)
            lines.append(f"{name:<10} {spread} ms")
    lines.append(f"output     {figures['output_tokens']} tokens")
    return "\n".join(lines)
