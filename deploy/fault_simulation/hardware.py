"""Simulated GPUs: limits that are set, clamped, lost, overridden and ignored. The truth that the checker adds up."""

from __future__ import annotations

from dataclasses import dataclass

from agent.core.caps import Health, LimitReading
from planner.domain.ids import GpuId, PoolId


@dataclass(frozen=True, slots=True)
class HeldBy:
    """A pod as its node sees it. ``pool`` None: it is not one of ours. Each termination makes another value.

    ``forced``: it was deleted by force, so that the API server does not list it, and it still runs.
    """

    name: str
    pool: PoolId | None
    terminating: bool = False
    forced: bool = False


class Card:
    """One physical GPU. ``floor_mw``: the true minimum, sometimes above the one that the driver reports."""

    __slots__ = (
        "default_mw",
        "disturbed_s",
        "enforced_mw",
        "floor_mw",
        "gpu",
        "ignores",
        "lawful_mw",
        "limiter_mw",
        "lost",
        "low_mw",
        "node",
        "ok_since_s",
        "pod",
        "read_error",
        "reading",
        "requested_mw",
        "resets",
        "write_error",
    )

    def __init__(self, gpu: GpuId, node: int, default_mw: int, low_mw: int, floor_mw: int) -> None:
        self.gpu = gpu
        self.node = node
        self.default_mw = default_mw
        self.low_mw = low_mw
        self.floor_mw = floor_mw
        self.requested_mw = default_mw
        self.enforced_mw = default_mw
        self.limiter_mw: int | None = None
        self.ignores = False
        self.write_error = False
        self.read_error = False
        self.lost = False
        self.resets = 0
        self.ok_since_s = 0.0
        self.lawful_mw: int | None = None
        """The limit before another tool raised it; None: the limit is as set by agents."""
        self.disturbed_s = 0.0
        self.reading: LimitReading | None = None
        self.pod: HeldBy | None = None

    @property
    def counted_mw(self) -> int:
        """What counts against the budget: the limit set in hardware, less what others added and is being undone.

        The set limit, not the enforced one: what another limiter holds back returns by itself.
        """
        lawful = self.lawful_mw
        return self.requested_mw if lawful is None or self.requested_mw < lawful else lawful

    def _enforce(self) -> None:
        limiter = self.limiter_mw
        self.enforced_mw = self.requested_mw if limiter is None else min(self.requested_mw, limiter)
        self.reading = None
        if self.lawful_mw is not None and self.requested_mw <= self.lawful_mw:
            self.lawful_mw = None

    def write(self, mw: int) -> str | None:
        """An agent's write: the driver clamps it, fails, or reports success without effect."""
        if self.write_error or self.lost:
            return "timeout"
        if self.ignores:
            return None
        value = min(max(mw, self.floor_mw), self.default_mw)
        if value > self.requested_mw:
            self.lawful_mw = None  # a raise by the agent itself counts in full
        self.requested_mw = value
        self._enforce()
        return None

    def disturb(self, mw: int, now_s: float) -> None:
        """Change the limit from outside: a reload, another tool, a cold start."""
        before = self.requested_mw if self.lawful_mw is None else min(self.requested_mw, self.lawful_mw)
        self.requested_mw = mw
        if mw > before:
            self.lawful_mw, self.disturbed_s = before, now_s
        self._enforce()

    def power_off(self) -> None:
        """Remove power: no limit, no draw."""
        self.requested_mw = self.enforced_mw = 0
        self.lawful_mw = self.limiter_mw = self.reading = None
        self.ignores = self.write_error = self.read_error = self.lost = False
        self.pod = None

    def limit_elsewhere(self, mw: int | None) -> None:
        """Another limiter comes or goes: what it held back returns to the request."""
        self.limiter_mw = mw
        self._enforce()

    def read(self) -> LimitReading:
        """The reading that the driver reports."""
        if self.reading is None:
            blind = self.read_error or self.lost
            self.reading = LimitReading(
                self.gpu,
                None if blind else self.requested_mw,
                None if blind else self.enforced_mw,
                self.default_mw,
                self.low_mw,
                self.default_mw,
                Health.QUARANTINED if self.lost else Health.UNKNOWN if self.read_error else Health.OK,
                self.resets,
            )
        return self.reading
