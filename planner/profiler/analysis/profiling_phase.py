"""The parts of profiling, under the names of Dynamo's v1beta1 requests. Pure."""

from __future__ import annotations

from enum import StrEnum


class ProfilingPhase(StrEnum):
    """One part. The first five are the profiler's; the last two are those of whoever carries a request out."""

    INITIALIZING = "Initializing"
    SWEEPING_PREFILL = "SweepingPrefill"
    SWEEPING_DECODE = "SweepingDecode"
    SELECTING_CONFIG = "SelectingConfig"
    BUILDING_CURVES = "BuildingCurves"
    GENERATING_DGD = "GeneratingDGD"
    DONE = "Done"


OF_PROFILER = frozenset(ProfilingPhase) - {ProfilingPhase.GENERATING_DGD, ProfilingPhase.DONE}
