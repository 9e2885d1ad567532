"""When requests are sent, and how long their prompts and answers are. Pure."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator

from planner.domain.request import Request


def poisson(rate_per_s: float, isl: int, osl: int, seed: int) -> Iterator[Request]:
    """Endless requests of one length, independent of each other: gaps are exponential with mean ``1 / rate_per_s``."""
    rng = random.Random(seed)
    t_s = 0.0
    while True:
        t_s += rng.expovariate(rate_per_s)
        yield Request(t_s, isl, osl)


def bounded(requests: Iterable[Request], count: int | None, duration_s: float | None) -> Iterator[Request]:
    """The first ``count`` requests that are due within ``duration_s``; None: no bound of that kind."""
    some = requests if count is None else itertools.islice(requests, count)
    return itertools.takewhile(lambda one: duration_s is None or one.t_s <= duration_s, some)


def prompt_of(request: Request, number: int) -> str:
    """A prompt of ``isl`` words. Equal blocks (``hash_ids``, 512 tokens each) have equal words."""
    words: list[str] = []
    for block in request.hash_ids:
        words += [f"b{block}"] * 512
    words = words[: request.isl]
    return " ".join((*words, *(f"r{number}" for _ in range(request.isl - len(words)))))
