"""A reading is either a sample, or missing with a reason and an age. Unknown is not zero."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class MissingReason(StrEnum):
    """Why a reading is missing."""

    NO_DATA = "no_data"
    NOT_A_NUMBER = "not_a_number"
    COUNTER_RESET = "counter_reset"
    STALE = "stale"
    UNREACHABLE = "unreachable"
    FIRST_SCRAPE = "first_scrape"
    NOT_EXPORTED = "not_exported"


@dataclass(frozen=True, slots=True)
class Sample:
    """A value, read ``age_s`` seconds before its observation."""

    value: float
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Missing:
    """No value, with the reason; ``age_s`` seconds since the last good one, 0 if there was none."""

    reason: MissingReason
    age_s: float = 0.0


Reading: TypeAlias = Sample | Missing

NO_DATA = Missing(MissingReason.NO_DATA)


def value_or_none(reading: Reading) -> float | None:
    """The sample's value, or None if missing. For callers to whom the reason does not matter."""
    return reading.value if isinstance(reading, Sample) else None
