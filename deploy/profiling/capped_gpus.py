"""The caps of a profiling run: which are measured, and who holds them: a guard process, or the node's planner."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from deploy.cli.errors import UsageError
from deploy.installed_files import own_module
from planner.profiler.online.guarded_caps import FoundLimit, GuardedCaps

GUARD_LOG = "limit_guard.log"
PROFILER = "(wattscale profile,"
"""In the lock file: what the guard of a run writes there, and no agent."""


def agent_owns(lock_file: Path) -> bool:
    """Whether a power agent holds this lock, and no profiling run."""
    try:
        file = os.open(lock_file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return PROFILER not in os.pread(file, 1000, 0).decode(errors="replace")
    finally:
        os.close(file)
    return False


def guarded_caps(
    gpus: Sequence[str], lock_file: Path, gpu_folder: Path | None, output: Path, *, all_at_once: bool
) -> GuardedCaps:
    """The guard of GPUs by name. ``all_at_once``: an engine uses all of them, whatever its TP size."""
    words = [*own_module("deploy.profiling.limit_guard"), "--lock-file", str(lock_file)]
    if gpu_folder is not None:
        words += ["--gpu-folder", str(gpu_folder)]

    def gpus_of(tp: int) -> tuple[str, ...]:
        return tuple(gpus if all_at_once else gpus[:tp])

    return GuardedCaps((*words, *gpus), gpus_of, output / GUARD_LOG)


def common_range_watts(found: Mapping[str, FoundLimit]) -> tuple[float, float]:
    """The least and the largest limit that every one of these GPUs takes, in watts."""
    return max(each.min_mw for each in found.values()) / 1000, min(each.max_mw for each in found.values()) / 1000


def swept_caps(found: Mapping[str, FoundLimit], wanted: Collection[float]) -> tuple[float, ...]:
    """The caps to measure, the highest first: those wanted, and the limit as found. Raises UsageError."""
    limits = {each.found_mw for each in found.values()}
    if len(limits) > 1:
        watts = ", ".join(f"{mw / 1000:g} W" for mw in sorted(limits))
        raise UsageError(f"--caps: the GPUs have different limits ({watts}); set them alike before")
    limit_watts = min(limits) / 1000
    least, _ = common_range_watts(found)
    if over := [watts for watts in wanted if watts > limit_watts]:
        raise UsageError(
            f"--caps {max(over):g}: the limit found is {limit_watts:g} W; a profile only lowers limits, so that no "
            "budget is exceeded"
        )
    if under := [watts for watts in wanted if watts < least]:
        raise UsageError(f"--caps {min(under):g}: these GPUs take {least:g} W and more")
    return tuple(sorted({limit_watts, *wanted}, reverse=True))


def leased_caps(found: Mapping[str, FoundLimit], wanted: Collection[float]) -> tuple[float, ...]:
    """The caps to measure where the planner sets them, the highest first: those wanted. Raises UsageError.

    The limit as found is not among them: it is where GPUs without a pool are parked.
    """
    least, most = common_range_watts(found)
    if outside := [watts for watts in wanted if not least <= watts <= most]:
        raise UsageError(f"--caps {outside[0]:g}: these GPUs take {least:g} to {most:g} W")
    return tuple(sorted(wanted, reverse=True))
