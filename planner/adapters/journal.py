"""Observations as plain data and back: what a plan record keeps for replay. Pure.

A replayed journal gives the core exactly what it saw: values, reasons, ages and replicas, no more and no less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from planner.domain.ids import PoolId
from planner.domain.observation import DeploymentObservation, PoolObservation
from planner.domain.pool import Replicas
from planner.domain.reading import Missing, MissingReason, Reading, Sample

FORMAT = 1
_NAMES = {field.name for kind in (DeploymentObservation, PoolObservation) for field in fields(kind)}
"""Readings of this version: an older journal's others are left out."""
MEANS = "mean_"
_FORMER = {"num_req": "requests"}
"""Readings that an older journal names differently."""


def entry(seen: DeploymentObservation, now_s: float, interval_s: float) -> dict[str, Any]:
    """One tick's observation of one deployment. ``interval_s``: the planner's own, in clock seconds."""
    return {
        "format": FORMAT,
        "now_s": now_s,
        "planner_interval_s": interval_s,
        "interval_s": seen.interval_s,
        "readings": _readings(seen),
        "pools": {
            pool: {"replicas": _replicas(p.replicas), "complete": p.complete, "readings": _readings(p)}
            for pool, p in seen.pools.items()
        },
    }


def observation(kept: Mapping[str, Any]) -> tuple[float, DeploymentObservation]:
    """(when on the planner's clock, what was seen). Raises ValueError for another format."""
    if kept.get("format") != FORMAT:
        raise ValueError(f"journal format {kept.get('format')!r}; this version reads {FORMAT}")
    pools = {
        PoolId(pool): PoolObservation(
            replicas=Replicas(**part["replicas"]), complete=part["complete"], **_back(part["readings"])
        )
        for pool, part in kept["pools"].items()
    }
    seen: DeploymentObservation = DeploymentObservation(
        interval_s=kept["interval_s"], pools=pools, **_back(kept["readings"])
    )
    return kept["now_s"], seen


def _readings(part: DeploymentObservation | PoolObservation) -> dict[str, Any]:
    found = {field.name: getattr(part, field.name) for field in fields(part)}
    # Means exist only where a quantity is read several times an interval; otherwise they equal the reading.
    return {
        name: _plain(value)
        for name, value in found.items()
        if isinstance(value, Sample) or (isinstance(value, Missing) and not name.startswith(MEANS))
    }


def _plain(reading: Reading) -> dict[str, Any]:
    if isinstance(reading, Sample):
        return {"value": reading.value, "age_s": reading.age_s}
    return {"missing": reading.reason.value, "age_s": reading.age_s}


def _back(readings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    named = {_FORMER.get(name, name): kept for name, kept in readings.items()}
    return {name: _reading(kept) for name, kept in named.items() if name in _NAMES}


def _reading(kept: Mapping[str, Any]) -> Reading:
    if "missing" in kept:
        return Missing(MissingReason(kept["missing"]), kept["age_s"])
    return Sample(kept["value"], kept["age_s"])


def _replicas(replicas: Replicas) -> dict[str, int]:
    return {field.name: getattr(replicas, field.name) for field in fields(replicas)}
