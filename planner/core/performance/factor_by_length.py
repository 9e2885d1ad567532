"""The factor of prefill by the length of prompts: what short ones taught does not hold for long ones.

A time that the profile does not know, such as a transfer or a wait, doubles the TTFT of a short prompt and is nothing
beside a long one's. Where a load flips between both, one factor would be wrong for minutes after every flip.
"""

from __future__ import annotations

from typing import TypeAlias

LIKE = 2.0
"""Prompts up to this many times as long as others, or as short, share their factor."""
MOST = 4
"""Number of lengths remembered: those that were seen last."""

Known: TypeAlias = tuple[tuple[float, float], ...]
"""(tokens of a prompt, factor), the newest last."""


def at(known: Known, tokens: float, factor: float) -> float:
    """The factor of prompts of ``tokens``; the one in force, ``factor``, where none of such a length were seen."""
    near = _nearest(known, tokens)
    return factor if near is None else near[1]


def remembered(known: Known, tokens: float, factor: float) -> Known:
    """``known`` after ``factor`` was learned from prompts of ``tokens``. A length stays the one first seen."""
    near = _nearest(known, tokens)
    others = tuple([one for one in known if one is not near])
    return (*others, (tokens if near is None else near[0], factor))[-MOST:]


def _nearest(known: Known, tokens: float) -> tuple[float, float] | None:
    near = min(known, key=lambda one: _apart(one[0], tokens), default=None)
    return near if near is not None and _apart(near[0], tokens) <= LIKE else None


def _apart(one: float, other: float) -> float:
    """How many times as long as the other the longer of two prompts is."""
    return max(one / other, other / one)
