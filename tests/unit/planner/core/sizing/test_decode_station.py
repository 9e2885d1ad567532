"""Decode batches that fill in time, and the quality knob below the median."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.performance.decode_model import DecodeModel
from planner.core.performance.prefill_model import PrefillModel
from planner.core.sizing import decode_station, prefill_station
from planner.core.sizing.options import wanted_count
from planner.core.sizing.sized_load import SizedLoad

ENGINE = DecodeModel(
    a_ms=19.0, b_ms=0.05, c_ms=5e-5, max_kv_tokens=250_000, max_batch=256.0, largest_context_tokens=1e5
)
READER = PrefillModel((100.0, 8000.0), (20.0, 800.0))
COUNTS = np.arange(1.0, 60.0)
ITL_MS = 40.0

loads = st.builds(
    SizedLoad,
    req_per_s=st.floats(0.1, 80.0),
    isl_tokens=st.floats(50.0, 8000.0),
    osl_tokens=st.floats(2.0, 800.0),
    in_flight=st.floats(0.0, 2000.0),
    queued_requests=st.sampled_from((0.0, 3.0, 60.0)),
    lead_s=st.sampled_from((0.0, 60.0)),
    interval_s=st.sampled_from((1.0, 5.0, 30.0)),
)


def _decode_speed(load: SizedLoad, itl_ms: float = ITL_MS) -> np.ndarray:
    return decode_station.required_speed(ENGINE, load, COUNTS, itl_ms)


@given(loads)
def test_a_filling_batch_asks_for_no_more_than_the_lasting_rate(load: SizedLoad) -> None:
    assert (_decode_speed(load) <= _decode_speed(replace(load, interval_s=0.0)) * (1 + 1e-9)).all()


@given(loads, st.floats(1.0, 3.0), st.floats(1.0, 3.0), st.floats(0.0, 500.0))
def test_more_load_or_a_tighter_target_never_asks_for_less(
    load: SizedLoad, rate: float, tighter: float, more: float
) -> None:
    asked = _decode_speed(load) * (1 - 1e-9)
    heavier = replace(load, req_per_s=load.req_per_s * rate, in_flight=load.in_flight + more)
    assert (_decode_speed(heavier) >= asked).all()
    assert (_decode_speed(load, ITL_MS / tighter) >= asked).all()
    assert (np.diff(_decode_speed(load)) <= 1e-9 * asked[1:]).all()


def test_after_a_slow_start_the_batch_is_the_steady_one() -> None:
    load = SizedLoad(20.0, 1000.0, 200.0, interval_s=2.0)
    steady = replace(load, interval_s=0.0)
    assert _decode_speed(replace(load, lead_s=300.0)) == pytest.approx(_decode_speed(steady), rel=1e-3)
    assert _decode_speed(load)[0] < 0.9 * _decode_speed(steady)[0]


@given(loads, st.floats(0.01, 0.5), st.floats(0.01, 0.99))
def test_a_lower_quality_never_asks_for_more_replicas(load: SizedLoad, low: float, high: float) -> None:
    load = replace(load, rates=(0.5 * load.req_per_s, load.req_per_s), serving=3.0)

    def asked(quantile: float) -> np.ndarray:
        queue = prefill_station.station(READER, load, quantile, 1.0)
        return prefill_station.required_speed(queue, load, COUNTS, 1000.0, 30.0)

    first, second = sorted((low, high))
    assert wanted_count(COUNTS, asked(first)) <= wanted_count(COUNTS, asked(second))
    assert asked(low) == pytest.approx(asked(0.5) * low / 0.5)
