"""What the engine reads and writes: tokens are words, and an answer follows from seed and prompt alone. Pure.

The same request to any engine with the same seed gives the same answer, whatever is batched beside it: whoever receives
one can check that all of it arrived.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

WORDS = ("amber", "basin", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty", "karst", "lagoon")
"""Followed by a number below 1000, so that two answers of a few words hardly ever agree."""


def tokenize(text: str) -> list[str]:
    """The tokens of a text: its words."""
    return text.split()


@dataclass(frozen=True, slots=True)
class Answer:
    """The words of one answer, made one by one. ``tokens`` words; ``finish_reason``: ``stop`` or ``length``."""

    key: bytes
    tokens: int
    finish_reason: str

    def word(self, index: int) -> str:
        """The word at ``index``, with the space before it where it is not the first."""
        digest = hashlib.blake2b(index.to_bytes(4, "big"), key=self.key, digest_size=4).digest()
        number = int.from_bytes(digest, "big")
        return f"{' ' if index else ''}{WORDS[number % len(WORDS)]}{number % 1000}"

    def text(self) -> str:
        """The whole answer."""
        return "".join(map(self.word, range(self.tokens)))


def answer_to(
    prompt: Sequence[str], seed: int, *, max_tokens: int, min_tokens: int, mean_tokens: float, ignore_eos: bool
) -> Answer:
    """The answer to a prompt. Its own length is geometric with mean ``mean_tokens``.

    ``ignore_eos``: always ``max_tokens`` long.
    """
    key = hashlib.blake2b(f"{seed}\0{' '.join(prompt)}".encode(), digest_size=16).digest()
    if ignore_eos:
        return Answer(key, max_tokens, "length")
    uniform = 1.0 - random.Random(key).random()
    leaves = math.log1p(-1.0 / mean_tokens) if mean_tokens > 1 else -math.inf
    own = max(1 + math.floor(math.log(uniform) / leaves), min_tokens)
    return Answer(key, own, "stop") if own <= max_tokens else Answer(key, max_tokens, "length")
