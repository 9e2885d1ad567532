"""One request of a workload: its arrival, and its input and output tokens."""

from __future__ import annotations

from typing import NamedTuple


class Request(NamedTuple):
    """Arrives ``t_s`` seconds after the start. ``hash_ids`` name the prompt's blocks of 512 tokens, if known."""

    t_s: float
    isl: int
    osl: int
    hash_ids: tuple[int, ...] = ()
