"""Growing pauses between attempts, with chance, so that many who failed together do not come back together."""

from __future__ import annotations

import random


class Backoff:
    """``next_s`` doubles from ``first_s`` to ``longest_s``, each cut by up to half at random; ``reset`` on success."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._next_s = first_s

    def next_s(self) -> float:
        """The next pause in seconds."""
        pause_s = self._next_s
        self._next_s = min(self._longest_s, pause_s * 2)
        return pause_s * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """The next pause is short again."""
        self._next_s = self._first_s
