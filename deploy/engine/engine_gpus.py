"""The GPUs of one engine: how fast they let it work under the cap in force, and what they draw meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.engine.shared_gpu import SUFFIX, NoSharedGpuError, SharedGpu
from planner.domain.power import PowerCurve
from planner.sim.cluster.sim_gpu import GpuCard, SimGpu, capped_speed


class EngineGpus:
    """GPUs that work on every step together. The slowest one sets the pace."""

    def __init__(self, gpus: Sequence[SharedGpu | OwnGpu], curve: PowerCurve) -> None:
        self.gpus = tuple(gpus)
        self._curve = curve
        self._share = -1.0

    def speed(self, share: float) -> float:
        """Begin work of this share of the phase's saturated draw (0: none). Returns the speed, 1 without a cap."""
        if share != self._share:
            self._share = share
            for gpu in self.gpus:
                gpu.set_load(share * self._curve.p_u_mw)
        if share <= 0:
            return 1.0
        return min(capped_speed(self._curve, gpu.limit_mw, share) for gpu in self.gpus)

    def release(self) -> None:
        """The engine ends: its GPUs are idle."""
        for gpu in self.gpus:
            gpu.release()
            gpu.close()


class OwnGpu:
    """A simulated GPU that no other process sees, under a cap that stays."""

    def __init__(self, uuid: str, card: GpuCard, limit_mw: int, clock: Callable[[], float]) -> None:
        self.uuid = uuid
        self._clock = clock
        self._gpu = SimGpu(uuid, "", card)
        self._gpu.at_s = clock()
        self.limit_mw = self._gpu.set_limit(limit_mw, clock())

    def set_load(self, load_mw: float) -> None:
        """What the work draws without a limit; never less than an idle card."""
        self._gpu.set_load(max(load_mw, self._gpu.card.idle_mw), self._clock())

    def release(self) -> None:
        """The work has ended."""
        self.set_load(0.0)

    def read(self) -> SimGpu:
        """The present state: limit, draw, energy."""
        self._gpu.advance(self._clock())
        return self._gpu

    def close(self) -> None:
        """Nothing to close."""


def shared_gpus(folder: Path, names: Sequence[str], clock: Callable[[], float]) -> list[SharedGpu]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` names, by UUID or by their place in the folder.

    Raises NoSharedGpuError.
    """
    known = sorted(file.name.removesuffix(SUFFIX) for file in folder.glob(f"*{SUFFIX}"))
    if not names:
        raise NoSharedGpuError(f"{folder}: CUDA_VISIBLE_DEVICES names no GPU")
    return [SharedGpu(folder / f"{_uuid(name, known, folder)}{SUFFIX}", clock) for name in names]


def _uuid(name: str, known: Sequence[str], folder: Path) -> str:
    if name in known:
        return name
    if name.isdecimal() and int(name) < len(known):
        return known[int(name)]
    raise NoSharedGpuError(f"{folder}: no GPU {name!r} here; there are {', '.join(known) or 'none'}")
