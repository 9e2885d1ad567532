"""A reading is a sample or a missing with a reason and an age. Unknown is not zero."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class MissingReason(StrEnum):
    """Why a reading is not there."""

    NO_DATA = "no_data"
    NOT_A_NUMBER = "not_a_number"
    COUNTER_RESET = "counter_reset"
    STALE = "stale"
    UNREACHABLE = "unreachable"
    FIRST_SCRAPE = "first_scrape"
    NOT_EXPORTED = "not_exported"


@dataclass(frozen=True, slots=True)
class Sample:
    """A value that was read ``age_s`` seconds before the observation it belongs to."""

    value: float
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Missing:
    """No value, why, and for how long (``age_s`` since the last good one; 0 when never)."""

    reason: MissingReason
    age_s: float = 0.0


Reading: TypeAlias = Sample | Missing

NO_DATA = Missing(MissingReason.NO_DATA)


def value_or_none(reading: Reading) -> float | None:
    """The sample's value, or None; for places where absence has one plain meaning."""
    return reading.value if isinstance(reading, Sample) else None
