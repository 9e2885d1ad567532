"""The journal: what was seen comes back exactly, through JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.adapters import journal
from planner.domain.ids import PoolId
from planner.domain.observation import DeploymentObservation, PoolObservation
from planner.domain.pool import Replicas
from planner.domain.reading import Missing, MissingReason, Sample

numbers = st.floats(0, 1e9)
readings = st.one_of(
    st.builds(Sample, numbers, numbers), st.builds(Missing, st.sampled_from(list(MissingReason)), numbers)
)
counts = st.integers(0, 1000)
pools = st.builds(
    PoolObservation,
    replicas=st.builds(Replicas, counts, counts, counts, counts),
    queued_requests=readings,
    kv_usage=readings,
    complete=st.booleans(),
)
seen = st.builds(
    DeploymentObservation,
    interval_s=numbers,
    requests=readings,
    ttft_ms=readings,
    isl_cv2=readings,
    pools=st.dictionaries(st.sampled_from([PoolId("prefill"), PoolId("decode")]), pools),
)


@given(seen, numbers)
def test_an_observation_comes_back_as_it_was(observed: DeploymentObservation, now_s: float) -> None:
    kept = json.loads(json.dumps(journal.entry(observed, now_s, 30.0)))
    assert journal.observation(kept) == (now_s, observed)


def test_a_count_kept_under_its_former_name_comes_back() -> None:
    kept = journal.entry(DeploymentObservation(30.0, requests=Sample(60.0)), 5.0, 30.0)
    kept["readings"]["num_req"] = kept["readings"].pop("requests")
    assert journal.observation(kept)[1].requests == Sample(60.0)


def test_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match="journal format 2; this version reads 1"):
        journal.observation({"format": 2})
