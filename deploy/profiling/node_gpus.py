"""The GPUs of this node as NVML has them: which may be profiled, and what they draw."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SAMPLE_S = 0.02
"""Between two samples of the draw. Drivers renew it every 20 to 100 ms."""


class NoGpuError(Exception):
    """GPUs that cannot be profiled; the message is one line."""


@dataclass(frozen=True, slots=True)
class NodeGpu:
    """One GPU. ``tenants``: process ids of others that compute on it."""

    index: int
    uuid: str
    name: str
    mig: bool
    tenants: tuple[int, ...]


class NvmlNode:
    """NVML of this node while it is open. Reads only: no limit is ever written here."""

    def __init__(self) -> None:
        import pynvml

        self._nvml: Any = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise NoGpuError(f"no GPU on this node: {error}") from None
        try:
            self.gpus = tuple(map(self._gpu, range(pynvml.nvmlDeviceGetCount())))
        except pynvml.NVMLError as error:
            self.close()
            raise NoGpuError(f"the GPUs of this node cannot be read: {error}") from None

    def close(self) -> None:
        """Leave NVML."""
        self._nvml.nvmlShutdown()

    def watts(self, indices: Iterable[int]) -> float | None:
        """The sum of their draws now; None where one cannot be read."""
        total = 0
        for index in indices:
            try:
                total += self._nvml.nvmlDeviceGetPowerUsage(self._nvml.nvmlDeviceGetHandleByIndex(index))
            except self._nvml.NVMLError:
                return None
        return total / 1000

    def limit_mw(self, index: int) -> int | None:
        """The limit in force on a GPU now, in milliwatts; None where it cannot be read."""
        nvml = self._nvml
        try:
            return int(nvml.nvmlDeviceGetEnforcedPowerLimit(nvml.nvmlDeviceGetHandleByIndex(index)))
        except nvml.NVMLError:
            return None

    def _gpu(self, index: int) -> NodeGpu:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        try:
            mig = nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
        except nvml.NVMLError:
            mig = False  # a type that has no MIG
        try:
            running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        except nvml.NVMLError:
            running = ()
        return NodeGpu(
            index,
            _text(nvml.nvmlDeviceGetUUID(handle)),
            _text(nvml.nvmlDeviceGetName(handle)),
            mig,
            tuple(each.pid for each in running if each.pid != os.getpid()),
        )


def usable(gpus: Sequence[NodeGpu], wanted: Sequence[int] | None, *, engine_runs: bool) -> tuple[NodeGpu, ...]:
    """The GPUs to profile: those ``wanted`` by index, else all. ``engine_runs``: processes on them are the engine's.

    Raises NoGpuError in one line: none there, MIG, other tenants.
    """
    if not gpus:
        raise NoGpuError("no GPU on this node")
    known = {gpu.index: gpu for gpu in gpus}
    if missing := [index for index in wanted or () if index not in known]:
        raise NoGpuError(f"no GPU {missing[0]} on this node; it has 0 to {len(gpus) - 1}")
    chosen = [known[index] for index in wanted] if wanted else list(gpus)
    for gpu in chosen:
        if gpu.mig:
            raise NoGpuError(f"GPU {gpu.index} ({gpu.name}) is divided by MIG: its draw is not that of one engine")
        if gpu.tenants and not engine_runs:
            raise NoGpuError(
                f"GPU {gpu.index} ({gpu.name}) has other tenants (process {gpu.tenants[0]}); end them, or name free "
                "GPUs with --gpus"
            )
    return tuple(chosen)


@dataclass(slots=True)
class NvmlDraw:
    """The draw of some GPUs of this node."""

    node: NvmlNode
    indices: tuple[int, ...]
    every_s: float = SAMPLE_S

    async def watts(self) -> float | None:
        """The sum of their draws now; None where it cannot be read."""
        return self.node.watts(self.indices)


def tp_sizes(gpus: int, least: int = 1) -> tuple[int, ...]:
    """The powers of two from ``least`` up to a number of GPUs."""
    return tuple(1 << power for power in range(gpus.bit_length()) if 1 << power >= least)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
