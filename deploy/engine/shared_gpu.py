"""Simulated GPUs that several processes share: each is a small file that engine and node agent map into memory.

The engine writes the work's draw, the agent writes the limit, and either sees the other at once, as through a driver.
The file holds the whole state of a `SimGpu`, so the draw and the energy follow from it whoever reads them. A lock on
the file makes each change one. A GPU whose engine was killed draws what an idle one does.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from planner.sim.cluster.sim_gpu import GpuCard, SimGpu

SUFFIX = ".gpu"
_LAYOUT = struct.Struct("<8s16s4qd2q5d2q")
_MAGIC = b"wattgpu1"
_LIMIT_AT = struct.calcsize("<8s16s4qdq")
"""Where the enforced limit is, for reads without the lock."""


class NoSharedGpuError(Exception):
    """A file that is missing or is not a shared GPU; ``str()`` names it."""


class SharedGpu:
    """One GPU's file, mapped. ``clock`` must be the machine's monotonic clock, which all its processes share."""

    def __init__(self, file: Path, clock: Callable[[], float]) -> None:
        self.uuid = file.name.removesuffix(SUFFIX)
        self._clock = clock
        self._thread = threading.Lock()
        try:
            self._fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise NoSharedGpuError(f"{file}: {error.strerror}") from error
        try:
            self._map = mmap.mmap(self._fd, _LAYOUT.size)
        except (ValueError, OSError) as error:
            os.close(self._fd)
            raise NoSharedGpuError(f"{file}: not a shared GPU") from error
        if self._map[: len(_MAGIC)] != _MAGIC:
            self.close()
            raise NoSharedGpuError(f"{file}: not a shared GPU")

    @property
    def limit_mw(self) -> int:
        """The limit in force. Reads one aligned number, so it needs no lock."""
        return int.from_bytes(self._map[_LIMIT_AT : _LIMIT_AT + 8], "little")

    def set_limit(self, mw: int) -> int:
        """Request a limit. Returns the enforced one: clamped to the card's range."""
        with self._changed() as gpu:
            return gpu.set_limit(mw, self._clock())

    def set_load(self, load_mw: float) -> None:
        """What this process's work draws without a limit; never less than an idle card.

        The GPU is this process's until `release`, or its end.
        """
        with self._changed(owner=os.getpid()) as gpu:
            gpu.set_load(max(load_mw, gpu.card.idle_mw), self._clock())

    def release(self) -> None:
        """This process's work has ended."""
        with self._changed(owner=0) as gpu:
            gpu.set_load(gpu.card.idle_mw, self._clock())

    def read(self) -> SimGpu:
        """The present state: limit, draw, energy."""
        with self._changed() as gpu:
            return gpu

    def close(self) -> None:
        """Unmap the file. The GPU stays as it is."""
        self._map.close()
        os.close(self._fd)

    @contextmanager
    def _changed(self, owner: int | None = None) -> Iterator[SimGpu]:
        # The lock on the file is the process's: it does not keep its threads apart.
        with self._thread:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield from self._locked(owner)
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _locked(self, owner: int | None) -> Iterator[SimGpu]:
        gpu, held_by, since = _unpacked(self.uuid, self._map)
        now_s = self._clock()
        gpu.at_s = min(gpu.at_s, now_s)  # Later than now: from before the machine started again.
        if held_by and _started(held_by) != since:
            held_by = since = 0
            gpu.set_load(gpu.card.idle_mw, now_s)
        gpu.advance(now_s)
        yield gpu
        if owner is not None:
            held_by, since = owner, _started(owner) if owner else 0
        _pack(self._map, gpu, held_by, since)


def make_shared_gpu(folder: Path, uuid: str, card: GpuCard, limit_mw: int, now_s: float) -> Path:
    """Create a GPU's file, idle and under a limit; an existing one is replaced. Returns its path."""
    gpu = SimGpu(uuid, "", card)
    gpu.at_s = now_s
    gpu.set_limit(limit_mw, now_s)
    content = bytearray(_LAYOUT.size)
    _pack(content, gpu, 0, 0)
    file = folder / f"{uuid}{SUFFIX}"
    draft = file.with_suffix(".new")
    draft.write_bytes(content)
    draft.replace(file)
    return file


def _pack(into: bytearray | mmap.mmap, gpu: SimGpu, owner: int, since: int) -> None:
    card = gpu.card
    model = card.model.encode()[:16]
    limits = (card.default_mw, card.min_mw, card.max_mw, card.idle_mw)
    state = (gpu.load_mw, gpu.draw_mw, gpu.energy_mj, gpu.at_s, gpu.over_until_s)
    values = (_MAGIC, model, *limits, card.lag_s, gpu.requested_mw, gpu.enforced_mw, *state, owner, since)
    # One assignment, so that a reader without the lock sees every number whole.
    into[: _LAYOUT.size] = _LAYOUT.pack(*values)


def _unpacked(uuid: str, content: mmap.mmap) -> tuple[SimGpu, int, int]:
    _, model, default, least, most, idle, lag_s, requested, enforced, load, draw, energy, at_s, over, owner, since = (
        _LAYOUT.unpack(content[: _LAYOUT.size])
    )
    card = GpuCard(model.rstrip(b"\0").decode(errors="replace"), default, least, most, idle, lag_s=lag_s)
    gpu = SimGpu(uuid, "", card)
    gpu.requested_mw, gpu.enforced_mw, gpu.load_mw, gpu.draw_mw = requested, enforced, load, draw
    gpu.energy_mj, gpu.at_s, gpu.over_until_s = energy, at_s, over
    return gpu, owner, since


def _started(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
