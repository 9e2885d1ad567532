"""An engine's KV cache in blocks: who holds how many, which prompts are cached, what is evicted. Pure.

As in vLLM: whole blocks of a prompt are shared between requests with the same beginning and stay cached after the last
one has ended, until their place is needed; the least recently released goes first.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 16


def block_hashes(tokens: Sequence[str]) -> tuple[int, ...]:
    """One hash for each whole block of a prompt. A block depends on all before it: equal hashes, equal beginnings."""
    hashes = []
    digest = hashlib.blake2b(digest_size=8)
    for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        digest.update("\0".join((*tokens[start : start + BLOCK_TOKENS], "")).encode())
        hashes.append(int.from_bytes(digest.digest(), "big"))
    return tuple(hashes)


class KvBlocks:
    """The blocks of one engine. Raises ValueError for a capacity below one block."""

    def __init__(self, capacity_tokens: int, *, prefix_cache: bool = True) -> None:
        self.capacity = capacity_tokens // BLOCK_TOKENS
        if self.capacity < 1:
            raise ValueError(f"a KV cache holds at least {BLOCK_TOKENS} tokens, not {capacity_tokens}")
        self._prefix_cache = prefix_cache
        self._shared: Counter[int] = Counter()
        """How many requests hold each block of a prompt."""
        self._cached: OrderedDict[int, None] = OrderedDict()
        """Blocks that no request holds, in the order in which they are evicted."""
        self._own = 0
        """Blocks that belong to one request."""

    @property
    def used(self) -> int:
        """Blocks that requests hold."""
        return len(self._shared) + self._own

    @property
    def usage(self) -> float:
        """Share of the blocks that requests hold, 0..1."""
        return self.used / self.capacity

    def take(self, hashes: Sequence[int], tokens: int, *, leave: int = 0) -> Holding | None:
        """Blocks for ``tokens`` tokens that begin with the blocks ``hashes``.

        None where fewer than ``leave`` blocks would stay free.
        """
        shared = tuple(hashes) if self._prefix_cache else ()
        own = math.ceil(tokens / BLOCK_TOKENS) - len(shared)
        fresh = sum(1 for block in dict.fromkeys(shared) if block not in self._shared)
        if self.used + fresh + own + leave > self.capacity:
            return None
        hits = 0
        for block in shared:
            if block not in self._shared and block not in self._cached:
                break
            hits += 1
        for block in shared:
            self._shared[block] += 1
            self._cached.pop(block, None)
        self._own += own
        self._evict()
        return Holding(shared, own, hits * BLOCK_TOKENS)

    def grow(self, holding: Holding, tokens: int) -> bool:
        """Hold enough blocks for ``tokens`` tokens. False where none is free."""
        more = math.ceil(tokens / BLOCK_TOKENS) - len(holding.shared) - holding.own
        if more <= 0:
            return True
        if self.used + more > self.capacity:
            return False
        holding.own += more
        self._own += more
        self._evict()
        return True

    def release(self, holding: Holding) -> None:
        """Give all blocks back. Those of the prompt stay cached."""
        self._own -= holding.own
        holding.own = 0
        # The end of a prompt is evicted before its beginning, without which it is of no use.
        for block in reversed(holding.shared):
            self._shared[block] -= 1
            if not self._shared[block]:
                del self._shared[block]
                self._cached[block] = None
        holding.shared = ()

    def _evict(self) -> None:
        while self.used + len(self._cached) > self.capacity:
            self._cached.popitem(last=False)


class Holding:
    """The blocks of one request. ``cached_tokens``: how much of its prompt was cached when they were taken."""

    __slots__ = ("cached_tokens", "own", "shared")

    def __init__(self, shared: tuple[int, ...], own: int, cached_tokens: int) -> None:
        self.shared = shared
        self.own = own
        self.cached_tokens = cached_tokens
