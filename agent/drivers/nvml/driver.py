"""NVIDIA GPUs through NVML: the ``nvidia-ml-py`` package (module ``pynvml``), and only the calls that are used.

Owns opening NVML, and reopening it after the driver went away. Must not be called on the event loop (calls block,
sometimes for seconds), never trusts an index, and never sets a limit on a handle that it has not just verified.
The library is loaded by the first call, not by the import of this module.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from agent.drivers.nvml.errors import translate
from agent.drivers.nvml.session import NvmlSession
from agent.ports import DRIVER_WIDE_KINDS, DriverError, DriverErrorKind, GpuInfo, GpuReading

T = TypeVar("T")


@dataclass(slots=True)
class _Memory:
    """What is kept about one GPU between reads and across reopenings."""

    energy_mj: int | None = None
    resets: int = 0


class NvmlDriver:
    """A ``GpuDriver``. ``power_scope``: ``gpu``, ``module`` (Grace Hopper), or ``auto`` (module where it answers)."""

    def __init__(self, power_scope: str = "auto") -> None:
        self._power_scope = power_scope
        self._lock = threading.Lock()
        self._session: NvmlSession | None = None
        self._failed: dict[str, DriverError] = {}
        self._memory: dict[str, _Memory] = {}

    def driver_version(self) -> str:
        """The kernel driver's version, for people."""
        return self._with(NvmlSession.driver_version)

    def enumerate(self) -> Sequence[GpuInfo]:
        """All physical GPUs by index order; one that fails is left out and named by ``failed``."""
        found, self._failed = self._with(NvmlSession.enumerate)
        return found

    def failed(self) -> Mapping[str, DriverError]:
        """GPUs that the last ``enumerate`` left out, by UUID where it was known, else ``index-N``."""
        return dict(self._failed)

    def read(self, gpu: str) -> GpuReading:
        """One GPU's state. Limits must answer; optional values may be None."""
        reading = self._with(lambda session: session.read(gpu))
        return replace(reading, resets=self._count_resets(gpu, reading.energy_mj))

    def set_limit(self, gpu: str, mw: int) -> None:
        """Set the limit of the GPU with this UUID, which is verified on the handle that is written to."""
        self._with(lambda session: session.set_limit(gpu, mw))

    def close(self) -> None:
        """Shut NVML down. Limits stay."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None:
            session.close()

    def _with(self, work: Callable[[NvmlSession], T]) -> T:
        session = self._open()
        try:
            return work(session)
        except DriverError as error:
            if error.kind in DRIVER_WIDE_KINDS:
                self._drop(session)
            raise

    def _open(self) -> NvmlSession:
        with self._lock:
            if self._session is None:
                self._session = _opened(self._power_scope)
            return self._session

    def _drop(self, session: NvmlSession) -> None:
        """The driver went away: the next call opens it anew. Another thread may have done so already."""
        with self._lock:
            if self._session is session:
                self._session = None

    def _count_resets(self, gpu: str, energy_mj: int | None) -> int:
        """The energy counter only ever goes back when the driver was loaded anew or the GPU was reset."""
        memory = self._memory.setdefault(gpu, _Memory())
        if energy_mj is not None:
            if memory.energy_mj is not None and energy_mj < memory.energy_mj:
                memory.resets += 1
            memory.energy_mj = energy_mj
        return memory.resets


def _opened(power_scope: str) -> NvmlSession:
    try:
        import pynvml
    except ImportError as error:
        message = "no module pynvml: install nvidia-ml-py, or choose the simulated driver"
        raise DriverError(DriverErrorKind.DRIVER_DOWN, message, call="init") from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise translate(error, "init", "") from error
    return NvmlSession(pynvml, power_scope)
