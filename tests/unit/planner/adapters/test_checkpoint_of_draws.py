"""What was learned from draws outlives a planner: through its records, as bytes, into the next leader's state."""

from __future__ import annotations

import json
from dataclasses import fields

from hypothesis import given
from hypothesis import strategies as st

from planner.adapters import checkpoint
from planner.core.allocation.returns import GONE, LoadGap
from planner.core.intake import initial_state
from planner.core.performance.prompt_span import PromptsSeen
from planner.core.power.p_u_estimator import Drawn, Estimate, LearnedPower
from planner.core.slo.error_budget import opened
from planner.core.slo.share_controller import SloState
from planner.core.state import DeploymentState, Flow, Learned, PoolState
from planner.domain.ids import PoolId
from planner.runtime.restore import joined
from tests.unit.planner.core.small_site import D, planner

watts = st.floats(1e5, 1e6)
counts = st.integers(0, 10_000)
estimates = st.builds(Estimate, watts, watts, st.floats(8.0, 200.0), st.floats(0.0, 1e9), counts, counts)
learned = st.dictionaries(st.integers(0, 12), estimates, max_size=4).map(LearnedPower)
shown = st.one_of(st.none(), watts)
drawn = st.builds(
    Drawn, learned, batch=st.floats(0, 1e4), bucket=st.integers(0, 12), measured_mw=shown, expected_mw=shown
)


@given(st.dictionaries(st.sampled_from([PoolId("prefill"), PoolId("decode")]), drawn))
def test_the_next_leader_knows_what_draws_taught(known: dict[PoolId, Drawn]) -> None:
    kept = json.loads(json.dumps(checkpoint.learned(DeploymentState(learned=Learned(draws=known))), allow_nan=False))
    fresh = initial_state(planner(), 2, 0.0, (), ())
    assert joined(fresh, D, checkpoint.state(kept), 1.0).deployments[D].learned.draws == known


def test_everything_that_is_learned_is_kept() -> None:
    pool = PoolState(
        ((1.0, 2), (31.0, 3)), ((1.0, 2), (16.0, 2)), ((31.0, 1),), (LoadGap(30.0, 0.5), GONE), most_seen=3, queued=4.0
    )
    taught = Learned(
        corrections={"decode": 1.1},
        prompts=(PromptsSeen(30.0, 30.0, 0.5, 1.0, 2, 3.0, 60.0, 6e4, 6e7, 60.0, 1500.0),),
        prefill_factors=((400.0, 1.5), (4000.0, 0.9)),
        draws={PoolId("decode"): Drawn(batch=4.0, bucket=2)},
        pools={PoolId("decode"): pool},
        metrics_at_s=30.0,
        edited_ticks=2,
        slo=SloState(0.93, opened(0.0).judged(30.0, 30.0, 1000.0, 20.0), "", "pinned"),
    )
    ways = {field.name for field in fields(Learned) if getattr(taught, field.name) != getattr(Learned(), field.name)}
    assert ways == {field.name for field in fields(Learned)} - {"forecasts"}, "forecasts are kept beside it"
    before = DeploymentState(Flow(5, {PoolId("decode"): 3}), taught)
    kept = json.loads(json.dumps(checkpoint.learned(before), allow_nan=False))
    assert checkpoint.state(kept).learned == taught
    assert checkpoint.state(kept).flow == Flow(published=before.flow.published), "ids come from the streams"


def test_records_from_before_draws_were_kept_are_still_read() -> None:
    kept = checkpoint.learned(DeploymentState(learned=Learned(corrections={"decode": 1.1})))
    del kept["drawn"]
    assert checkpoint.state(kept).learned.corrections == {"decode": 1.1}
    assert checkpoint.state(kept).learned.draws == {}
