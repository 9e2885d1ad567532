"""One recorded request: what a trace knows of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Arrival:
    """``at_s`` is seconds from the trace's start; requests come in order."""

    at_s: float
    isl_tokens: float
    osl_tokens: float
