"""The load of the past days from an archive, so that forecasts know a day's pattern when a planner starts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta
from operator import attrgetter
from pathlib import Path

from bus_schemas import v1
from bus_schemas.subjects import encode_name
from deploy.archive.day_files import DayFiles
from planner.domain.request import ObservedLoad

DAYS = 7
"""Days before the newest one that are read: a pattern gives each new day half of the weight."""
WHOLE_S = 3600.0
"""The newest records, from which the errors of forecasts are learned, are taken one by one."""
QUARTER_S = 900.0
"""Older ones by quarters of an hour, as a day's pattern has them: learning takes time while the lead is taken."""


def past_load(folder: Path, deployment: str, scale: float) -> tuple[ObservedLoad, ...]:
    """What the planner's records in an archive say of a deployment, oldest first; nothing where none is kept.

    ``scale``: records of a load that was replayed at another speed are left out. Raises ArchiveError, OSError.
    """
    files = DayFiles(folder)
    days = files.days()
    found: list[ObservedLoad] = []
    for day in days:
        if day >= days[-1] - timedelta(days=DAYS):
            for entry in files.of_day(day, rf"\.telemetry\.plan\.{re.escape(encode_name(deployment))}$"):
                record = entry.message
                if isinstance(record, v1.PlanRecord) and (record.load_time_scale or 1.0) == scale:
                    found += _observed(record)
    found.sort(key=attrgetter("end_s"))
    whole_from_s = found[-1].end_s - WHOLE_S if found else 0.0
    older = [load for load in found if load.end_s <= whole_from_s]
    return (*_by_quarters(older), *found[len(older) :])


def _observed(record: v1.PlanRecord) -> Iterator[ObservedLoad]:
    seen = record.observed
    if "requests" in seen and seen.get("interval_s", 0.0) > 0:
        lengths = seen.get("isl_tokens"), seen.get("osl_tokens")
        yield ObservedLoad(record.time.timestamp(), seen["interval_s"], max(0.0, seen["requests"]), *lengths)


def _by_quarters(loads: Iterable[ObservedLoad]) -> Iterator[ObservedLoad]:
    """The loads of each quarter of an hour as one."""
    quarter: list[ObservedLoad] = []
    for load in loads:
        if quarter and load.end_s // QUARTER_S != quarter[0].end_s // QUARTER_S:
            yield _together(quarter)
            quarter = []
        quarter.append(load)
    if quarter:
        yield _together(quarter)


def _together(loads: list[ObservedLoad]) -> ObservedLoad:
    seconds, requests = (sum(values) for values in zip(*((one.interval_s, one.requests) for one in loads), strict=True))
    lengths = (_mean([(getattr(one, name), one.requests) for one in loads]) for name in ("isl_tokens", "osl_tokens"))
    return ObservedLoad(loads[-1].end_s, seconds, requests, *lengths)


def _mean(values: list[tuple[float | None, float]]) -> float | None:
    """The mean by requests; None where nothing is known."""
    known = [(value, weight) for value, weight in values if value is not None and weight > 0]
    weights = sum(weight for _, weight in known)
    return sum(value * weight for value, weight in known) / weights if weights > 0 else None
