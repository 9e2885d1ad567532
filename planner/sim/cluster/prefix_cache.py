"""A worker's prefix cache: which leading blocks of a prompt it has computed before, least recently used first out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 512
"""Tokens named by one hash of a Mooncake trace."""


class PrefixCache:
    """Holds ``capacity_tokens`` worth of blocks."""

    __slots__ = ("_blocks", "_capacity")

    def __init__(self, capacity_tokens: int) -> None:
        self._capacity = capacity_tokens // BLOCK_TOKENS
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def use(self, hashes: Sequence[int], isl: int) -> int:
        """Tokens of a prompt that are held; the whole prompt is held from now on.

        Only leading blocks count, for a block's content rests on all before it; the last token is always computed.
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
