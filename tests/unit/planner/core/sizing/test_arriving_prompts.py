"""What prompts need is predicted from the load that arrives; what is sized for includes the rates that may come."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from planner.core.sizing.sized_load import SizedLoad


@given(st.floats(0.1, 100.0), st.floats(1.0, 4.0), st.floats(0.0, 50.0))
def test_only_what_arrives_and_waits_is_left(rate: float, jump: float, queued: float) -> None:
    load = SizedLoad(
        req_per_s=rate * jump,
        isl_tokens=1000.0,
        osl_tokens=100.0,
        rates=(rate, rate * jump),
        queued_requests=queued,
        arriving_req_per_s=rate,
        lead_s=60.0,
    )
    arrives = load.as_it_arrives()
    assert arrives is not None
    assert (arrives.req_per_s, arrives.rates, arrives.lead_s) == (rate, (rate,), 0.0)
    assert arrives.queued_requests == queued
    assert replace(load, arriving_req_per_s=None).as_it_arrives() is None
