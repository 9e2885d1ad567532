"""Simulated GPUs: a driver for machines without any, for demonstrations, rehearsals and tests.

Owns a small physical model of power-capped GPUs (a limit that acts with a lag, a short overshoot, clamping, idle and
phase draw, counters that start again at a reset) and a list of faults to inject. Must never sleep or start threads:
time is read from the clock passed in, so that a test can control it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.ports import DriverError, DriverErrorKind, GpuInfo, GpuReading, MonotonicClock, monotonic


@dataclass(frozen=True, slots=True)
class SimulatedGpuModel:
    """A card's data sheet. Milliwatts; the defaults are those of an H200 SXM."""

    model: str = "NVIDIA H200"
    default_mw: int = 700_000
    min_mw: int = 200_000
    max_mw: int = 700_000
    idle_mw: int = 75_000
    lag_s: float = 0.15
    """Time constant with which the draw follows a new limit or a new load."""
    overshoot: float = 0.08
    """How far above the limit the draw may stand for ``overshoot_s`` after the load rises."""
    overshoot_s: float = 0.05


H200 = SimulatedGpuModel()


@dataclass(slots=True)
class SimulatedGpu:
    """One card's state. ``load_mw`` is what the work on it would draw without a cap."""

    uuid: str
    card: SimulatedGpuModel = H200
    requested_mw: int = 0
    enforced_mw: int = 0
    load_mw: int = 0
    pids: tuple[int, ...] = ()
    resets: int = 0
    ignores_writes: bool = False
    """Writes succeed and change nothing (seen on locked virtual machines)."""
    other_limiter_mw: int | None = None
    """A second limiter (a chassis, a thermal one): the enforced limit is the lower of both."""
    faults: dict[str, DriverErrorKind] = field(default_factory=dict)
    """By call: ``enumerate``, ``read``, ``set_limit``."""
    _draw_mw: float = 0.0
    _energy_mj: float = 0.0
    _at_s: float = 0.0
    _load_since_s: float = -math.inf

    def __post_init__(self) -> None:
        self.requested_mw = self.requested_mw or self.card.default_mw
        self.enforced_mw = self.enforced_mw or self.requested_mw
        self.load_mw = self.load_mw or self.card.idle_mw
        self._draw_mw = float(self.card.idle_mw)

    def advance(self, now_s: float) -> None:
        """Integrate draw and energy up to ``now_s``: a first-order lag towards ``min(load, limit)``."""
        dt_s = max(0.0, now_s - self._at_s)
        self._at_s = now_s
        target = float(min(self.load_mw, self._ceiling_mw(now_s)))
        decay = math.exp(-dt_s / self.card.lag_s) if self.card.lag_s > 0 else 0.0
        gap = self._draw_mw - target
        # The exact integral of the exponential, so that the energy does not depend on how often it is read.
        self._energy_mj += target * dt_s + gap * self.card.lag_s * (1.0 - decay)
        self._draw_mw = target + gap * decay

    def _ceiling_mw(self, now_s: float) -> float:
        if now_s - self._load_since_s <= self.card.overshoot_s:
            return self.enforced_mw * (1.0 + self.card.overshoot)
        return self.enforced_mw

    def set_load(self, load_mw: int, now_s: float) -> None:
        """New work (or none) from ``now_s`` on."""
        self.advance(now_s)
        if load_mw > self.load_mw:
            self._load_since_s = now_s
        self.load_mw = load_mw

    def write(self, mw: int, now_s: float) -> None:
        """What the card does with a request: clamp upwards to its minimum, downwards to its maximum."""
        self.advance(now_s)
        if self.ignores_writes:
            return
        self.requested_mw = min(max(mw, self.card.min_mw), self.card.max_mw)
        self._enforce()

    def _enforce(self) -> None:
        limits = [self.requested_mw, *([] if self.other_limiter_mw is None else [self.other_limiter_mw])]
        self.enforced_mw = min(limits)

    def limit_elsewhere(self, mw: int | None) -> None:
        """A second limiter comes (or goes, with None)."""
        self.other_limiter_mw = mw
        self._enforce()

    def reset(self, now_s: float) -> None:
        """A driver reload or GPU reset: the limit silently returns to its default, counters start at zero."""
        self.advance(now_s)
        self.requested_mw = self.card.default_mw
        self._enforce()
        self._energy_mj = 0.0
        self.resets += 1

    @property
    def draw_mw(self) -> int:
        """Draw at the last ``advance``."""
        return round(self._draw_mw)

    @property
    def energy_mj(self) -> int:
        """Energy since the last reset, in millijoules."""
        return int(self._energy_mj)

    @property
    def throttle_reasons(self) -> tuple[str, ...]:
        """``sw_power_cap`` while the limit holds the load back."""
        if self.load_mw <= self.enforced_mw:
            return ("gpu_idle",) if self.load_mw <= self.card.idle_mw else ()
        return ("sw_power_cap",)


class SimulatedDriver:
    """A node's simulated GPUs as a ``GpuDriver``. Thread-safe: calls arrive from worker threads."""

    def __init__(
        self,
        gpus: Sequence[SimulatedGpu],
        *,
        clock: MonotonicClock = monotonic,
        on_write: Callable[[str, int], None] | None = None,
    ) -> None:
        self.gpus = {gpu.uuid: gpu for gpu in gpus}
        self.writes: list[tuple[str, int]] = []
        self._clock = clock
        self._on_write = on_write
        self._lock = threading.Lock()
        self._failed: dict[str, DriverError] = {}
        now_s = clock()
        for gpu in self.gpus.values():
            gpu.advance(now_s)

    @classmethod
    def of(
        cls, node: str, count: int, card: SimulatedGpuModel = H200, clock: MonotonicClock = monotonic
    ) -> SimulatedDriver:
        """``count`` equal cards with UUIDs that name the node, at their default limit and idle."""
        return cls([SimulatedGpu(f"GPU-{node}-{index:02d}", card) for index in range(count)], clock=clock)

    def enumerate(self) -> Sequence[GpuInfo]:
        """The cards in insertion order; one with an ``enumerate`` fault is left out."""
        with self._lock:
            self._failed = {}
            return [info for index, gpu in enumerate(self.gpus.values()) if (info := self._describe(index, gpu))]

    def _describe(self, index: int, gpu: SimulatedGpu) -> GpuInfo | None:
        kind = gpu.faults.get("enumerate")
        if kind is not None:
            self._failed[gpu.uuid] = DriverError(kind, f"simulated {kind}", call="enumerate", gpu=gpu.uuid)
            return None
        card = gpu.card
        return GpuInfo(gpu.uuid, index, card.model, card.default_mw, card.min_mw, card.max_mw)

    def failed(self) -> Mapping[str, DriverError]:
        """Cards that the last ``enumerate`` left out."""
        return dict(self._failed)

    def read(self, gpu: str) -> GpuReading:
        """The card's state now."""
        with self._lock:
            card = self._card(gpu, "read")
            card.advance(self._clock())
            return GpuReading(
                gpu=gpu,
                requested_mw=card.requested_mw,
                enforced_mw=card.enforced_mw,
                draw_mw=card.draw_mw,
                energy_mj=card.energy_mj,
                throttle_reasons=card.throttle_reasons,
                pids=card.pids,
                resets=card.resets,
            )

    def set_limit(self, gpu: str, mw: int) -> None:
        """Write a limit; the card clamps it."""
        with self._lock:
            card = self._card(gpu, "set_limit")
            card.write(mw, self._clock())
            self.writes.append((gpu, mw))
        if self._on_write is not None:
            self._on_write(gpu, mw)

    def close(self) -> None:
        """Nothing to release; limits stay."""

    def _card(self, gpu: str, call: str) -> SimulatedGpu:
        card = self.gpus.get(gpu)
        if card is None:
            raise DriverError(DriverErrorKind.NO_SUCH_GPU, f"no simulated GPU {gpu}", call=call, gpu=gpu)
        kind = card.faults.get(call)
        if kind is not None:
            raise DriverError(kind, f"simulated {kind}", call=call, gpu=gpu)
        return card
