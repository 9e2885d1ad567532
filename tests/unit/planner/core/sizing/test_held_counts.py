"""Every replica that a pool holds has the speed of its own count, however few are wanted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from planner.core.performance.engine_model import engine
from planner.core.sizing import decode_station, sla
from planner.core.sizing.options import PoolOptions, at_count
from planner.core.sizing.sized_load import Corrections, SizedLoad
from planner.domain.ids import PoolId
from tests.unit.planner.core.small_site import DECODE, PREFILL, PROFILE, deployment, pool

ENGINE = engine(PROFILE)
CONFIG = deployment({PREFILL: pool(PREFILL), DECODE: pool(DECODE)})
ANSWERS = SizedLoad(
    40.0, 3000.0, 150.0, rates=(40.0,), arriving_req_per_s=40.0, serving=32.0, lead_s=60.0, interval_s=30.0
)


def options(held: int, name: PoolId = DECODE, most: int = 500) -> PoolOptions:
    config = replace(CONFIG, pools={PREFILL: pool(PREFILL, max_replicas=most), DECODE: pool(DECODE, max_replicas=most)})
    found = sla.options(config, config.pools[name], ENGINE, ANSWERS, Corrections(), held=held)
    assert found is not None
    return found


@pytest.mark.parametrize("held", [60, 200])
def test_a_kept_decode_replica_needs_the_speed_of_its_own_batch(held: int) -> None:
    few, kept = options(0), options(held)
    assert ENGINE.decode is not None
    assert kept.wanted == few.wanted < held / 4
    counts = np.array([float(held)])
    for speeds, law, alone in (
        (kept.speed, few.speed, decode_station.required_speed),
        (kept.arriving, few.arriving, decode_station.arriving_speed),
    ):
        own = float(alone(ENGINE.decode, ANSWERS, counts, CONFIG.itl_ms)[0])
        assert at_count(speeds, held) == pytest.approx(own)
        # An empty engine takes its time for an iteration: beyond the table the law promises what no engine does.
        assert at_count(law, held) < 0.8 * own


def test_what_is_held_changes_no_wish_and_no_speed_of_another_count() -> None:
    few, kept = options(0, PREFILL), options(100, PREFILL)
    assert kept.wanted == few.wanted
    assert kept.speed[: len(few.speed)] == few.speed
    assert kept.chain == few.chain


def test_more_than_the_most_may_be_held() -> None:
    assert len(options(30, most=10).speed) == 31
