"""The memory behind the library with NVML's ABI, as Python sees it: tests read and change GPUs while an agent runs.

Mirrors ``nvml.h``; the library refuses a file of another size, so the two cannot drift apart unnoticed.
"""

from __future__ import annotations

import ctypes as c
import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_GPUS, MAX_PIDS, MAX_MIG, JOURNAL, MAGIC = 72, 16, 7, 4096, 0x57415454

FUNCTIONS = (
    "init", "shutdown", "driver_version", "count", "handle_by_index", "handle_by_uuid", "uuid", "name", "pci",
    "get_limit", "enforced", "constraints", "default", "set_limit", "set_limit_v2", "power_usage", "fields", "energy",
    "processes", "reasons", "mig", "persistence", "event_set_create", "register_events", "event_wait",
)  # fmt: skip
IGNORES_WRITES, CLAMPS, LOST, HAS_MODULE, NO_POWER_FIELDS, NO_INSTANT_FIELD = 1, 2, 4, 8, 16, 32


class FakeLimits(c.Structure):
    _fields_ = [(name, c.c_uint32) for name in ("requested", "enforced", "standard", "min", "max")]


class NvmlGpu(c.Structure):
    """One card. Set ``error[...]`` through ``fail``; everything else is a plain attribute."""

    _fields_ = [
        ("uuid", c.c_char * 96),
        ("name", c.c_char * 96),
        ("bus", c.c_char * 32),
        ("gpu", FakeLimits),
        ("module", FakeLimits),
        *((name, c.c_uint32) for name in ("usage_mw", "instant_mw", "average_mw", "other_limiter_mw")),
        ("energy_mj", c.c_uint64),
        ("reasons", c.c_uint64),
        *((name, c.c_uint32) for name in ("mig", "persistence", "flags", "pid_count")),
        ("pids", c.c_uint32 * MAX_PIDS),
        ("writes", c.c_uint32),
        ("hang_after_write_ms", c.c_uint32),
        ("mig_count", c.c_uint32),
        ("mig_uuids", (c.c_char * 64) * MAX_MIG),
        ("error", c.c_int32 * len(FUNCTIONS)),
        ("hang_ms", c.c_uint32 * len(FUNCTIONS)),
    ]

    def fail(self, call: str, code: int) -> None:
        """Let ``call`` answer with NVML's error ``code`` (0: work again)."""
        self.error[FUNCTIONS.index(call)] = code

    def hang(self, call: str, ms: int) -> None:
        """Let ``call`` take ``ms``; 0 ends also a call that hangs already."""
        self.hang_ms[FUNCTIONS.index(call)] = ms

    def run(self, *pids: int) -> None:
        """The compute processes on this card."""
        self.pids[: len(pids)] = pids
        self.pid_count = len(pids)

    def split(self, *instances: str) -> None:
        """MIG mode with these instances."""
        self.mig, self.mig_count = 1, len(instances)
        for slot, uuid in enumerate(instances):
            self.mig_uuids[slot].value = uuid.encode()

    def reset(self) -> None:
        """A driver reload: the limit returns to its default and the energy counter starts again."""
        self.gpu.requested = self.gpu.enforced = self.gpu.standard
        self.energy_mj = 0

    def foreign_write(self, mw: int) -> None:
        """Another tool sets a limit behind the agent's back."""
        self.gpu.requested = self.gpu.enforced = mw


class Write(c.Structure):
    _fields_ = [
        ("at_ns", c.c_uint64),
        *((name, c.c_uint32) for name in ("slot", "asked_mw", "enforced_mw", "pid")),
    ]


class State(c.Structure):
    _fields_ = [
        *((name, c.c_uint32) for name in ("magic", "size", "count", "event_waiting")),
        ("order", c.c_uint32 * MAX_GPUS),
        ("error", c.c_int32 * len(FUNCTIONS)),
        ("hang_ms", c.c_uint32 * len(FUNCTIONS)),
        ("calls", c.c_uint64 * len(FUNCTIONS)),
        ("event_type", c.c_uint64),
        ("event_data", c.c_uint64),
        ("event_slot", c.c_uint32),
        ("journal_next", c.c_uint32),
        ("driver_version", c.c_char * 80),
        ("gpus", NvmlGpu * MAX_GPUS),
        ("journal", Write * JOURNAL),
    ]


class FakeNvml:
    """A state file with ``count`` cards of 200 to 700 W at their default of 700 W."""

    def __init__(self, path: Path, count: int = 2) -> None:
        self.path = path
        path.write_bytes(b"\0" * c.sizeof(State))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.state: Any = State.from_buffer(self._map)
        self.state.driver_version = b"580.65.06"
        self.state.order[:] = list(range(MAX_GPUS))
        for index in range(count):
            self._build(self.state.gpus[index], index)
        self.state.count = count
        self.state.size = c.sizeof(State)
        self.state.magic = MAGIC

    @staticmethod
    def _build(gpu: NvmlGpu, index: int) -> None:
        gpu.uuid = f"GPU-{index:08x}-0000-0000-0000-000000000000".encode()
        gpu.name = b"NVIDIA H200"
        gpu.bus = f"00000000:{index + 1:02X}:00.0".encode()
        for limits in (gpu.gpu, gpu.module):
            limits.requested = limits.enforced = limits.standard = limits.max = 700_000
            limits.min = 200_000
        gpu.usage_mw, gpu.average_mw, gpu.instant_mw = 80_000, 80_000, 81_000
        gpu.energy_mj, gpu.persistence, gpu.reasons = 1_000_000, 1, 1

    @property
    def gpus(self) -> Sequence[NvmlGpu]:
        """The cards by slot, which no renumbering changes."""
        return [self.state.gpus[slot] for slot in range(self.state.count)]

    @property
    def uuids(self) -> list[str]:
        return [gpu.uuid.decode() for gpu in self.gpus]

    def fail(self, call: str, code: int) -> None:
        """Let ``call`` fail on every card and on the driver itself."""
        self.state.error[FUNCTIONS.index(call)] = code

    def calls(self, call: str) -> int:
        """How often ``call`` was made so far, by all processes."""
        return int(self.state.calls[FUNCTIONS.index(call)])

    def renumber(self, *order: int) -> None:
        """Index i now means slot ``order[i]``."""
        self.state.order[: len(order)] = order

    def event(self, slot: int, kind: int, data: int = 0) -> None:
        """One event waits to be fetched."""
        self.state.event_slot, self.state.event_type, self.state.event_data = slot, kind, data
        self.state.event_waiting = 1

    @property
    def writes(self) -> list[tuple[int, int, int]]:
        """(slot, asked mW, enforced mW after it) in the order of the writes."""
        total = min(self.state.journal_next, JOURNAL)
        records = [self.state.journal[index] for index in range(total)]
        return [(record.slot, record.asked_mw, record.enforced_mw) for record in records]

    @property
    def enforced(self) -> list[int]:
        """Enforced limits by slot, in milliwatts."""
        return [gpu.gpu.enforced for gpu in self.gpus]
