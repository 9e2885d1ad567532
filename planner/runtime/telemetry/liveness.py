"""Signs of life, from which the health server answers. Written by the service, read by anyone on the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from planner.ports import Standing


class Liveness:
    """The loop's heartbeat, whether this process leads, and when it last decided (planner's clock)."""

    def __init__(self, beat_every_s: float = 1.0, standing: Callable[[], Standing] = Standing) -> None:
        self._standing = standing
        self._beat_every_s = beat_every_s
        self.epoch: int | None = None
        self.terms = 0
        self.last_tick_s: float | None = None
        self.last_decided_s: float | None = None
        self.led_since_s: float | None = None
        self.ticks = 0
        self.reactions = 0
        self.unfit = ""
        """Why no planner may lead over this bus; empty if one may."""
        self._beat_s = time.monotonic()

    async def beat(self) -> None:
        """Beat until cancelled; the beat stops exactly when the event loop does."""
        while True:
            self._beat_s = time.monotonic()
            await asyncio.sleep(self._beat_every_s)

    @property
    def leader(self) -> str:
        """Who leads where this process does not; empty where none is known."""
        return "" if self.epoch is not None else self._standing().leader

    @property
    def hindrance(self) -> str:
        """What keeps this process from leading, other than another leader; empty where nothing does."""
        return "" if self.epoch is not None else self.unfit or self._standing().hindrance

    @property
    def beat_age_s(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self._beat_s

    def leading(self, epoch: int | None, now_s: float) -> None:
        """A term began (its epoch) or ended (None) at ``now_s`` of the planner's clock."""
        self.epoch = epoch
        self.led_since_s = None if epoch is None else now_s
        if epoch is not None:
            self.terms += 1
            self.unfit = ""

    def decided(self, now_s: float, *, tick: bool) -> None:
        """Note that a decision was published, or needed no message."""
        self.last_decided_s = now_s
        if tick:
            self.last_tick_s = now_s
            self.ticks += 1
        else:
            self.reactions += 1
