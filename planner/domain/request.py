"""One request of a workload: its arrival, and its input and output tokens; and what came of them in an interval."""

from __future__ import annotations

from typing import NamedTuple


class Request(NamedTuple):
    """Arrives ``t_s`` seconds after the start. ``hash_ids`` name the prompt's blocks of 512 tokens, if known."""

    t_s: float
    isl: int
    osl: int
    hash_ids: tuple[int, ...] = ()


class ObservedLoad(NamedTuple):
    """The requests of an interval that ended at ``end_s`` of UTC, and their mean tokens (None: unknown)."""

    end_s: float
    interval_s: float
    requests: float
    isl_tokens: float | None = None
    osl_tokens: float | None = None
