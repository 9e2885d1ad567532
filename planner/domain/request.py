"""One request of a workload: when it arrives and how many tokens it brings and wants."""

from __future__ import annotations

from typing import NamedTuple


class Request(NamedTuple):
    """``t_s`` seconds from the start of the workload. ``hash_ids`` name the prompt's blocks of 512 tokens, if known."""

    t_s: float
    isl: int
    osl: int
    hash_ids: tuple[int, ...] = ()
