"""One recorded request of a trace."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """``at_s`` is seconds from the start of the trace; arrivals are in order."""

    at_s: float
    isl_tokens: float
    osl_tokens: float
