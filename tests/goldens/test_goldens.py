"""The planner behaves as recorded. What was meant to change is recorded anew: ``python -m tests.goldens record``."""

from __future__ import annotations

import pytest

from planner.domain.reasons import ReasonCode
from tests.goldens import days
from tests.goldens.source import DATA, GoldenSource, compared, digest
from tests.goldens.sources import SOURCES

MOST_BYTES = 200_000


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_behaviour_is_as_recorded(source: GoldenSource) -> None:
    difference = source.difference()
    assert difference is None, f"{difference}\nwhat is behind a line: python -m tests.goldens show {source.name} KEY"


def test_a_difference_says_where_and_in_which_part() -> None:
    kept = ["tick_1 aa bb cc", "tick_2 aa bb cc", "tick_3 aa bb cc"]
    now = ["tick_1 aa bb cc", "tick_2 aa b0 c0", "tick_3 a0 bb cc"]
    words = compared("day", ("decisions", "reasons", "watts"), kept, now)
    assert words == (
        "day: first at tick 2: reasons (bb recorded, b0 now) and watts (cc recorded, c0 now); 2 of 3 lines differ"
    )
    assert compared("day", (), kept, kept) is None
    assert compared("day", (), kept, kept[:2]) == "day: 3 lines were recorded, now there are 2"


def test_a_milliwatt_and_a_code_change_a_digest() -> None:
    assert digest((("gpu", 500_000),)) != digest((("gpu", 500_001),))
    assert digest((("sla", 3),)) != digest((("load", 3),))
    assert digest([("sla", 3)]) == digest((("sla", 3),))


def test_the_days_are_long_and_meet_most_reasons() -> None:
    """Goldens that exercise little would freeze little."""
    lines = [line for name in days.DAYS for line in (DATA / f"day-{name}.txt").read_text("utf-8").splitlines()]
    assert sum(line.startswith("tick_") for line in lines) >= 1000
    met = {line.split()[0] for line in lines if line.startswith("met_")}
    assert len(met) >= 35, (
        f"not met: {sorted({each.value for each in ReasonCode} - {m.removeprefix('met_') for m in met})}"
    )


def test_the_data_stay_small() -> None:
    assert sum(path.stat().st_size for path in DATA.iterdir()) < MOST_BYTES
