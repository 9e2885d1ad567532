"""Growing pauses between attempts, with jitter, so that many clients that failed together do not come back together."""

from __future__ import annotations

import random

_MAX_DOUBLINGS = 32


def pause_s(first_s: float, longest_s: float, attempt: int) -> float:
    """The pause in seconds after failed attempt number ``attempt`` (from 0): ``first_s`` doubled that many times.

    At most ``longest_s``, and cut by up to half at random.
    """
    longest: float = min(longest_s, first_s * 2.0 ** min(attempt, _MAX_DOUBLINGS))
    return longest * random.uniform(0.5, 1.0)


class Backoff:
    """`pause_s` for one series of attempts: ``next_s`` grows with each call, ``reset`` begins again after a success."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._attempt = 0

    def next_s(self) -> float:
        """The next pause in seconds."""
        pause = pause_s(self._first_s, self._longest_s, self._attempt)
        self._attempt += 1
        return pause

    def reset(self) -> None:
        """Make the next pause a short one again."""
        self._attempt = 0
