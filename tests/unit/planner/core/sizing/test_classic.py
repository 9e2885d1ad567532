"""Mode ``classic`` against decisions recorded from the published 0.9.1 planner's own core."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from planner.core.forecast.kalman import Kalman
from planner.core.intake import initial_state
from planner.core.performance.published_interpolators import classic_prefill
from planner.core.sizing import classic
from planner.core.step import step
from planner.domain.config import PlannerConfig, ScalingRules, SizingMode
from planner.domain.observation import DeploymentObservation, Observation, ScalingAckSeen
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile
from planner.domain.reading import NO_DATA, Sample
from planner.domain.reasons import ReasonCode
from tests.shared_data import shared
from tests.unit.planner.core.small_site import DECODE, PREFILL, D, deployment, pool

RECORDED_BUDGET = 64
"""The recordings without a budget of their own were made under this one."""


def profile_at(folder: Path) -> Profile:
    prefill = json.loads((folder / "prefill_raw_data.json").read_text())
    decode = json.loads((folder / "decode_raw_data.json").read_text())
    return Profile(
        name=folder.name,
        prefill=PrefillProfile(
            tuple(prefill["prefill_isl"]), tuple(prefill["prefill_ttft"]), tuple(prefill["prefill_thpt_per_gpu"])
        ),
        decode=DecodeProfile(
            tuple(decode["x_kv_usage"]),
            tuple(decode["y_context_length"]),
            tuple(decode["z_itl"]),
            tuple(decode["z_thpt_per_gpu"]),
            decode["max_kv_tokens"],
        ),
    )


def settings(record: dict[str, Any]) -> PlannerConfig:
    told = record["config"]
    pools = {name: pool(name, max_replicas=RECORDED_BUDGET, scale_down=ScalingRules()) for name in (PREFILL, DECODE)}
    one = deployment(
        pools,
        profile=profile_at(shared("profiles/dynamo_h200_8b_fp8_tp1p_tp1d")),
        ttft_ms=told["ttft_ms"],
        itl_ms=told["itl_ms"],
        sizing=SizingMode.CLASSIC,
        predictor=told["load_predictor"],
        max_gpus=told.get("max_gpu_budget", RECORDED_BUDGET),
    )
    # 0.9.1 trusts its Kalman filter from the first point on; later releases wait for five.
    return PlannerConfig({D: one}, interval_s=record["interval_s"], predictors={"kalman": Kalman(min_points=1)})


@pytest.mark.parametrize("name", ["h200_8b_ramp", "h200_8b_burst_budget16", "h200_8b_walk_kalman"])
def test_every_recorded_decision_is_made_again(name: str) -> None:
    record = json.loads(shared(f"dynamo_decisions/{name}.json").read_text())
    config = settings(record)
    state = initial_state(config, 1, 0.0, (), ())
    for tick, (seen, wanted) in enumerate(zip(record["intervals"], record["decisions"]["0.9.1"], strict=True)):
        carried_out = state.deployments[D].flow.decision_id
        observation = Observation(
            {
                D: DeploymentObservation(
                    record["interval_s"],
                    Sample(seen["num_req"]),
                    Sample(seen["isl"]),
                    Sample(seen["osl"]),
                    Sample(seen["ttft_ms"]),
                    Sample(seen["itl_ms"]),
                    Sample(seen["request_duration_s"]),
                )
            },
            scaling_acks={D: ScalingAckSeen(D, carried_out, carried_out, "applied")},
        )
        state, plan = step(state, observation, config, config.clock(tick * record["interval_s"]))
        pools = plan.deployments[D].pools
        granted = (pools[PREFILL].granted, pools[DECODE].granted)
        assert granted == (wanted["num_prefill"], wanted["num_decode"]), f"interval {tick}"
        corrections = plan.deployments[D].corrections
        assert corrections["prefill"] == pytest.approx(wanted["p_correction"], rel=1e-9)
        assert corrections["decode"] == pytest.approx(wanted["d_correction"], rel=1e-9)
        assert bool(plan.scaling) == wanted["changed"]


def test_predictions_of_the_later_release_are_the_same_filter() -> None:
    record = json.loads(shared("dynamo_decisions/h200_8b_walk_kalman.json").read_text())
    filters = {quantity: Kalman() for quantity in ("num_req", "isl", "osl")}
    for tick, (seen, said) in enumerate(zip(record["intervals"], record["decisions"]["1.6.1"], strict=True)):
        for quantity in filters:
            filters[quantity] = filters[quantity].observe(60.0 * tick, seen[quantity])
            assert filters[quantity].mean(60.0) == pytest.approx(said[f"predicted_{quantity}"], rel=1e-9)


def test_a_missing_reading_keeps_the_last_correction() -> None:
    record = json.loads(shared("dynamo_decisions/h200_8b_ramp.json").read_text())
    config, seen = settings(record), record["intervals"][0]
    state = initial_state(config, 1, 0.0, (), ())
    known: dict[str, Any] = {
        "requests": Sample(seen["num_req"]),
        "isl_tokens": Sample(3000.0),
        "osl_tokens": Sample(150.0),
    }
    full = DeploymentObservation(
        60.0, ttft_ms=Sample(90.0), itl_ms=Sample(20.0), request_duration_s=Sample(5.0), **known
    )
    state, _ = step(state, Observation({D: full}), config, config.clock(0.0))
    before = dict(state.deployments[D].learned.corrections)
    state, plan = step(
        state, Observation({D: DeploymentObservation(60.0, ttft_ms=NO_DATA, **known)}), config, config.clock(60.0)
    )
    assert dict(state.deployments[D].learned.corrections) == before
    assert plan.deployments[D].pools[PREFILL].chain[0].reason is ReasonCode.CLASSIC


@pytest.mark.parametrize(
    ("counts", "gpus", "budget", "cut"),
    [((6, 6), (1, 1), 16, (6, 6)), ((15, 277), (1, 1), 64, (3, 61)), ((1, 40), (2, 4), 16, (1, 4))],
)
def test_the_published_cut_rounds_as_published(
    counts: tuple[int, int], gpus: tuple[int, int], budget: int, cut: tuple[int, int]
) -> None:
    assert classic.within_budget(*counts, *gpus, budget, (1, 1)) == cut


@pytest.mark.parametrize("points", [2, 3, 4])
def test_a_profile_of_few_points_is_interpolated_as_smoothly_as_they_carry(points: int) -> None:
    isl = tuple(1000.0 * (n + 1) for n in range(points))
    profile = PrefillProfile(isl, tuple(0.1 * length for length in isl), (10_000.0,) * points)
    assert classic_prefill(profile).ttft_ms(1500.0) == pytest.approx(150.0)
