"""A worker's states (starting, ready, draining, gone), its GPUs, and its speed under their power limits.

Owns the translation of phase and batch size into load on the GPUs. Subclasses own the work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from planner.domain.power import PowerCurve
from planner.sim.cluster.job import Job
from planner.sim.cluster.sim_gpu import SimGpu, capped_speed
from planner.sim.cluster.virtual_time import Events

LEAST_LOAD_CHANGE = 0.01
"""Smaller changes of the draw's share are not passed to the GPUs: they cost time without a visible effect."""


class WorkerState(StrEnum):
    """A worker's state. FAILED and GONE hold no GPU."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    GONE = "gone"
    FAILED = "failed"


class WorkerListener(Protocol):
    """What a worker reports to its pool."""

    def idle(self, worker: Worker) -> None:
        """``worker`` has room for more."""
        ...

    def emptied(self, worker: Worker) -> None:
        """A draining worker has finished its last request."""
        ...


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """What a new worker starts with, whatever its role: a name, GPUs with their power curve, a clock, and its pool."""

    worker: str
    pool: str
    gpus: Sequence[SimGpu]
    curve: PowerCurve
    events: Events
    owner: WorkerListener


class Worker:
    """One engine replica. ``speed`` is relative to full power; ``busy_s`` is the time spent with work."""

    __slots__ = (
        "busy_s",
        "curve",
        "energy_at_start_mj",
        "events",
        "gpus",
        "limit_mw",
        "owner",
        "pool",
        "ready_s",
        "share",
        "speed",
        "started_s",
        "state",
        "version",
        "worker",
    )

    def __init__(self, slot: WorkerSlot) -> None:
        events = slot.events
        self.worker = slot.worker
        self.pool = slot.pool
        self.gpus = tuple(slot.gpus)
        self.curve = slot.curve
        self.events = events
        self.owner = slot.owner
        self.state = WorkerState.STARTING
        self.started_s = events.now_s
        self.ready_s = -1.0
        self.busy_s = 0.0
        self.version = 0
        self.share = 0.0
        self.speed = 1.0
        self.energy_at_start_mj = 0.0
        self.limit_mw = min(gpu.enforced_mw for gpu in self.gpus)
        for gpu in self.gpus:
            gpu.set_load(max(gpu.card.starting_mw, gpu.card.idle_mw), events.now_s)
            gpu.owner = slot.worker
            self.energy_at_start_mj += gpu.energy_mj

    def become_ready(self) -> None:
        """Begin to serve: the weights are loaded."""
        self.state = WorkerState.READY
        self.ready_s = self.events.now_s
        self.share = -1.0
        self.set_share(0.0)

    def limits_changed(self) -> None:
        """Follow a changed GPU limit: an engine is as slow as its slowest GPU."""
        limit_mw = min(gpu.enforced_mw for gpu in self.gpus)
        if limit_mw == self.limit_mw:
            return
        self.limit_mw = limit_mw
        self._update_speed()

    def set_share(self, share: float) -> None:
        """Set the share of the saturated draw that the present work takes without a limit; 0 when idle."""
        change = share - self.share
        if -LEAST_LOAD_CHANGE < change < LEAST_LOAD_CHANGE and (share == 0.0) == (self.share == 0.0):
            return
        self.share = share
        now_s = self.events.now_s
        for gpu in self.gpus:
            gpu.set_load(max(self.curve.p_u_mw * share, gpu.card.idle_mw), now_s)
        self._update_speed()

    def _update_speed(self) -> None:
        share = self.share if self.share > 0 else 1.0
        speed = capped_speed(self.curve, self.limit_mw, share)
        if speed != self.speed:
            self.change_speed(speed)

    def change_speed(self, speed: float) -> None:
        """Advance the work to now at the old speed, then continue at the new one."""
        raise NotImplementedError

    def backlog(self) -> float:
        """The amount of present work, for choosing which worker to drain first."""
        raise NotImplementedError

    @property
    def waiting_tokens(self) -> int:
        """Prompt tokens that wait at this worker, not at the router."""
        return 0

    @property
    def busy(self) -> bool:
        """Whether it has any work."""
        raise NotImplementedError

    def abandon(self) -> list[Job]:
        """Return all unfinished jobs: the worker has died."""
        raise NotImplementedError

    @property
    def alive(self) -> bool:
        """Whether it holds GPUs."""
        return self.state in (WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING)
