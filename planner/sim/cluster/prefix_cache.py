"""A worker's prefix cache: the leading prompt blocks computed before, evicting the least recently used."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 512
"""Tokens per hash in a Mooncake trace."""


class PrefixCache:
    """Holds blocks worth up to ``capacity_tokens`` tokens."""

    __slots__ = ("_blocks", "_capacity")

    def __init__(self, capacity_tokens: int) -> None:
        self._capacity = capacity_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def use(self, hashes: Sequence[int], isl: int) -> int:
        """Cached tokens of a prompt; from now on the whole prompt is cached.

        Only leading blocks count, because a block depends on all before it. The last token is always computed.
        """
        blocks = self._blocks
        held = 0
        for block in hashes:
            if block not in blocks:
                break
            held += 1
        for block in hashes:
            blocks[block] = None
            blocks.move_to_end(block)
        while len(blocks) > self._capacity:
            blocks.popitem(last=False)
        return min(held * BLOCK_TOKENS, isl - 1)
