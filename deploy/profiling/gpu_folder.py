"""Simulated GPUs that `wattscale engine --gpu-folder` works on, as a driver that reads them and sets their limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.ports import DriverError, DriverErrorKind, GpuInfo, GpuReading
from deploy.engine.shared_gpu import SUFFIX, NoSharedGpuError, SharedGpu


class FolderDriver:
    """A ``GpuDriver`` of a folder. ``clock``: the machine's monotonic clock. Raises NoSharedGpuError."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        names = folder_gpus(folder)
        self._gpus = {name: SharedGpu(folder / f"{name}{SUFFIX}", clock) for name in names}

    def enumerate(self) -> Sequence[GpuInfo]:
        """All GPUs of the folder, by name."""
        cards = [(name, each.read().card) for name, each in self._gpus.items()]
        return [
            GpuInfo(name, index, card.model, card.default_mw, card.min_mw, card.max_mw)
            for index, (name, card) in enumerate(cards)
        ]

    def failed(self) -> Mapping[str, DriverError]:
        """None: each GPU of the folder answers."""
        return {}

    def read(self, gpu: str) -> GpuReading:
        """A GPU's state. Raises DriverError for a name that is not there."""
        state = self._one(gpu).read()
        return GpuReading(gpu, state.requested_mw, state.enforced_mw, round(state.draw_mw), int(state.energy_mj))

    def set_limit(self, gpu: str, mw: int) -> None:
        """Set a limit; the card clamps it. Raises DriverError for a name that is not there."""
        self._one(gpu).set_limit(mw)

    def close(self) -> None:
        """Unmap the files. Limits stay."""
        for each in self._gpus.values():
            each.close()

    def _one(self, gpu: str) -> SharedGpu:
        if gpu not in self._gpus:
            raise DriverError(DriverErrorKind.NO_SUCH_GPU, f"no GPU {gpu} in the folder", call="read", gpu=gpu)
        return self._gpus[gpu]


def folder_gpus(folder: Path) -> tuple[str, ...]:
    """The names of a folder's GPUs. Raises NoSharedGpuError where there is none."""
    names = tuple(sorted(file.name.removesuffix(SUFFIX) for file in folder.glob(f"*{SUFFIX}")))
    if not names:
        raise NoSharedGpuError(f"{folder}: holds no GPU (NAME{SUFFIX})")
    return names
