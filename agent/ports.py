"""The interfaces between the agent's loops and the machine: GPUs, their owners, and the clock.

Owns the Protocols and the plain values that cross them. Imports no client library: drivers, the service and test
doubles meet here. Only calls that the agent makes exist.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agent.core.ownership import Process

MonotonicClock = Callable[[], float]
"""Seconds that never go back. Leases and settle times are measured on it, never on the wall clock."""

monotonic: MonotonicClock = time.monotonic


class DriverErrorKind(StrEnum):
    """What went wrong in the driver, as far as it changes what the agent does next."""

    TIMEOUT = "timeout"
    """No answer in time. Retried."""
    NOT_READY = "not_ready"
    """The driver is loading, or the GPU is busy with a mode change. Retried."""
    UNSUPPORTED = "unsupported"
    """This GPU supports no limit. Permanent: uncappable."""
    NO_PERMISSION = "no_permission"
    """The agent may not set limits here. Permanent until it is started with more rights: uncappable."""
    GPU_LOST = "gpu_lost"
    """The GPU fell off the bus. Quarantined."""
    RESET_REQUIRED = "reset_required"
    """The GPU wants a reset before it answers. Quarantined."""
    FUNCTION_MISSING = "function_missing"
    """An older driver without this call."""
    LIBRARY_MISMATCH = "library_mismatch"
    """Library and kernel module differ: only a restart of the process helps."""
    DRIVER_DOWN = "driver_down"
    """No driver is loaded or the library is not initialised. Retried with a new start of the driver."""
    INVALID = "invalid"
    """The driver refused an argument."""
    NO_SUCH_GPU = "no_such_gpu"
    """No GPU with this UUID answers any more."""
    UNKNOWN = "unknown"
    """Anything else. Retried."""


UNCAPPABLE_KINDS = frozenset({DriverErrorKind.UNSUPPORTED, DriverErrorKind.NO_PERMISSION})
"""Permanent: the GPU is charged at its default limit from now on."""

QUARANTINE_KINDS = frozenset({DriverErrorKind.GPU_LOST, DriverErrorKind.RESET_REQUIRED, DriverErrorKind.NO_SUCH_GPU})
"""The GPU is charged at its default limit until it answers again."""

DRIVER_WIDE_KINDS = frozenset({DriverErrorKind.LIBRARY_MISMATCH, DriverErrorKind.DRIVER_DOWN})
"""Not specific to one GPU: the driver has to be reopened."""


class DriverError(Exception):
    """A call to the GPU driver failed. ``call`` names it; ``permanent`` means that a retry cannot help."""

    def __init__(self, kind: DriverErrorKind, message: str, *, call: str = "", gpu: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.call = call
        self.gpu = gpu

    @property
    def permanent(self) -> bool:
        """Whether only another driver, card or right would change the answer."""
        return self.kind in UNCAPPABLE_KINDS


@dataclass(frozen=True, slots=True)
class GpuInfo:
    """What does not change while a GPU is present. Limits in milliwatts. ``index`` is for people only."""

    gpu: str
    index: int
    model: str
    default_mw: int
    min_mw: int
    max_mw: int
    mig: bool = False
    persistence: bool | None = None
    """None: the driver does not report it."""
    mig_instances: tuple[str, ...] = ()
    """UUIDs of the MIG instances on this card. A limit is always the whole card's."""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One reading of a GPU. None: the driver did not report the value, which is never the same as zero."""

    gpu: str
    requested_mw: int | None
    enforced_mw: int | None
    draw_mw: int | None = None
    energy_mj: int | None = None
    throttle_reasons: tuple[str, ...] = ()
    pids: tuple[int, ...] | None = None
    """Compute processes, in the driver's PID namespace."""
    resets: int = 0
    """Resets seen since the driver was opened: the limit that was set before is gone."""
    last_xid: int | None = None


class GpuDriver(Protocol):
    """A node's GPUs. Every call may block and is made off the event loop, under a time-out. Raises DriverError."""

    def enumerate(self) -> Sequence[GpuInfo]:
        """All GPUs that answer, physical ones only. A GPU that fails is left out and named by ``failed``."""
        ...

    def failed(self) -> Mapping[str, DriverError]:
        """GPUs that the last ``enumerate`` could not describe, by UUID where known, else by index or bus id."""
        ...

    def read(self, gpu: str) -> GpuReading:
        """What is in force on one GPU, verified to be that UUID."""
        ...

    def set_limit(self, gpu: str, mw: int) -> None:
        """Ask for a limit. What is enforced afterwards has to be read back."""
        ...

    def close(self) -> None:
        """Release the driver. Limits stay as they are."""
        ...


class Processes(Protocol):
    """The processes of the GPU driver's PID namespace."""

    def process(self, pid: int) -> Process | None:
        """The process with this id now; None when there is none. Reads files: called off the event loop."""
        ...


@dataclass(frozen=True, slots=True)
class GpuOwner:
    """Whose work runs on a GPU. Empty strings: not known."""

    deployment: str = ""
    pool: str = ""
    role: str = ""
    worker: str = ""
    pod: str = ""
    """``namespace/name`` in Kubernetes."""
    terminating: bool = False
    container: str = ""
    """Its name in the pod."""


class GpuOwners(Protocol):
    """Who owns which GPU. A GPU that is absent from the answer is free; an error means that nothing is known."""

    async def owners(self) -> Mapping[str, GpuOwner]:
        """Owners by GPU UUID. Raises OwnersUnknownError when the source cannot be read."""
        ...


class OwnersUnknownError(Exception):
    """The source of ownership could not be read: keep what was known and change nothing because of it."""


class NoOwners:
    """A machine without Kubernetes: no owner is known."""

    async def owners(self) -> Mapping[str, GpuOwner]:
        """No owners."""
        return {}
