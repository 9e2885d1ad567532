"""Simulated GPUs that `wattscale engine --gpu-folder` works on, as a driver that reads them and sets their limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deploy.engine.shared_gpu import SUFFIX, NoSharedGpuError, SharedGpu
from deploy.engine.shared_gpu_driver import SharedGpuDriver


class FolderDriver(SharedGpuDriver):
    """All GPUs of a folder, by name. ``clock``: the machine's monotonic clock. Raises NoSharedGpuError."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._opened = [SharedGpu(folder / f"{name}{SUFFIX}", clock) for name in folder_gpus(folder)]
        super().__init__(self._opened)

    def close(self) -> None:
        """Unmap the files. Limits stay."""
        for each in self._opened:
            each.close()


def folder_gpus(folder: Path) -> tuple[str, ...]:
    """The names of a folder's GPUs. Raises NoSharedGpuError where there is none."""
    names = tuple(sorted(file.name.removesuffix(SUFFIX) for file in folder.glob(f"*{SUFFIX}")))
    if not names:
        raise NoSharedGpuError(f"{folder}: holds no GPU (NAME{SUFFIX})")
    return names
