"""Hands what arrives on the bus to the planner, and to those in its process who only show it: it is decoded once.

They get the planner's own decisions too, once the bus has stored them: what is shown is what the bus holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bus_schemas.v1 import Message
from planner.ports import Listener

Take = Callable[[Message, int], None]
"""Gets a message and its sequence. Must return at once and never raise, as a `Listener`."""
UNKNOWN_PLACE = 0
"""The sequence of a decision that is stored, and whose place in the stream is not known: the answer was lost."""


class SharedListener:
    """``planner`` gets every message first; the others get it as it was sent, also what the planner leaves out."""

    def __init__(self, planner: Listener) -> None:
        self._planner = planner
        self._others: tuple[Take, ...] = ()

    def received(self, message: Message, sequence: int) -> None:
        """Take one message in."""
        self._planner.received(message, sequence)
        for take in self._others:
            take(message, sequence)

    def published(self, messages: Sequence[Message], places: Sequence[int]) -> None:
        """The bus has stored these decisions of the planner, at these places in their stream; empty: not known."""
        for take in self._others:
            for message, place in zip(messages, places or [UNKNOWN_PLACE] * len(messages), strict=True):
                take(message, place)

    @contextmanager
    def shared_with(self, take: Take) -> Iterator[None]:
        """Inside, ``take`` gets every report, acknowledgement and command that arrives, whoever leads, and every
        decision that this planner published.
        """
        self._others = (*self._others, take)
        try:
            yield
        finally:
            self._others = tuple(other for other in self._others if other is not take)
