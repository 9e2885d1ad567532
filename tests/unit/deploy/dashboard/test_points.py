"""Points of the charts: what a record holds, and gaps where it holds nothing."""

from __future__ import annotations

import pytest

from deploy.dashboard.points import deployment_point, joules_per_token, site_point
from tests.doubles.seen_site import record

ONE_GPU = {"prefill": 1, "decode": 1}


def test_a_tick_is_one_point() -> None:
    point = deployment_point(record(3), ONE_GPU)
    assert point["rate"] == 10.0
    assert point["ahead"] == [60_000, 9.0, 8.0, 12.0]
    assert point["pools"] == {"prefill": [2, 2, 2], "decode": [9, 6, 6]}
    assert (point["ttft_ms"], point["itl_ms"], point["decision"]) == (321.0, 31.0, 3)
    assert {key: value for key, value in site_point(record(3)).items() if key != "t"} == {
        "budget": 10_000, "charged": 9000, "caps": 6400, "drawn": 6240,
    }  # fmt: skip


def test_energy_a_token_is_measured_watts_over_the_tokens_of_the_interval() -> None:
    # (2 x 450 W + 6 x 350 W) x 10 s over 100 requests of 200 tokens.
    assert joules_per_token(record(1), ONE_GPU) == pytest.approx(1.5)
    assert joules_per_token(record(1), {"prefill": 2, "decode": 4}) == pytest.approx(5.1)


def test_what_is_not_known_is_a_gap() -> None:
    assert joules_per_token(record(1), {"prefill": 1}) is None
    assert joules_per_token(record(1, gpu_power={}), ONE_GPU) is None
    bare = deployment_point(record(1, observed={}, forecasts={}, expected={}), ONE_GPU)
    assert set(bare) == {"t", "decision", "pools"}
