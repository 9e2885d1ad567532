"""Hands what arrives on the bus to the planner, and to those in its process who only show it: it is decoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bus_schemas.v1 import Message
from planner.ports import Listener

Take = Callable[[Message, int], None]
"""Gets a message and its sequence. Must return at once and never raise, as a `Listener`."""


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

    @contextmanager
    def shared_with(self, take: Take) -> Iterator[None]:
        """Inside, ``take`` gets every report, acknowledgement and command that arrives, whoever leads."""
        self._others = (*self._others, take)
        try:
            yield
        finally:
            self._others = tuple(other for other in self._others if other is not take)
