"""What a tour states of a step is what the messages hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

from bus_schemas import v1
from deploy.cli.run import tour
from deploy.report.watts import Excess, SiteWatts
from deploy.tour.phased_load import LONGEST_PROMPT_TOKENS, LoadPhase
from deploy.tour.step_figures import StepFigures, in_time, most_gpus, observed_mean
from deploy.tour.steps import STEPS

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def record(requests: float, **good: float | None) -> v1.PlanRecord:
    shares = {phase: v1.GoodShareRecord(measured=share) for phase, share in good.items()}
    observed = {"requests": requests, "isl_tokens": 10 * requests}
    return v1.PlanRecord(time=NOON, deployment="chat", decision_id=1, observed=observed, good=shares)


def decision(number: int, replicas: int) -> v1.ScalingDecision:
    pools = {"decode": v1.PoolTarget(role="decode", replicas=replicas, gpus_per_replica=2)}
    return v1.ScalingDecision(time=NOON, deployment="chat", decision_id=number, incarnation="one", epoch=1, pools=pools)


def test_shares_are_weighted_by_the_requests_of_each_tick() -> None:
    records = [record(100, prompts=1.0, answers=0.5), record(300, prompts=0.8, answers=None), record(0, prompts=0.0)]
    assert in_time(records) == (400.0, {"answers": 0.5, "prompts": 0.85})
    assert in_time([record(100)]) == (0.0, {})
    assert observed_mean(records, "isl_tokens") == (1000 * 100 + 3000 * 300) / 400
    assert observed_mean([], "isl_tokens") is None


def test_decisions_are_shown_with_what_became_of_them() -> None:
    ack = v1.ScalingAck(
        time=NOON, deployment="chat", decision_id=4, scaled_decision_id=4, epoch=1, status=v1.AckStatus.APPLIED
    )
    shown = [(decision(number, number), ack if number == 4 else None) for number in range(1, 6)]
    lines = StepFigures(tuple(shown), 0.0).lines()
    assert lines[:4] == [
        "2 decisions about replicas before these:",
        "chat scaling #3: decode=3 [no answer yet]",
        "chat scaling #4: decode=4 [applied]",
        "chat scaling #5: decode=5 [no answer yet]",
    ]
    assert lines[4:] == ["caps: no node answered anything in this step", "share good: nothing measured in this step"]
    assert most_gpus(decision(1, 3)) == 6


def test_a_violation_is_not_taken_for_a_cut() -> None:
    end = NOON + timedelta(seconds=1.5)
    for after_cut, words in (
        (True, "above it only for the 1.50 s that the cut took"),
        (False, "which no cut explains"),
    ):
        site = SiteWatts("row", least_budget=900.0, most_budget=1000.0, most_enforced=950.0, acknowledgements=7)
        site.excesses.append(Excess("row", NOON, end, 50.0, after_cut))
        (line,) = [one for one in StepFigures((), 0.0, {}, site, 123.0).lines() if one.startswith("caps")]
        assert line.startswith("caps at most 950 W, budget 900 W to 1,000 W: ")
        assert words in line
        assert line.endswith("in 7 acknowledgements; 123 W drawn now")


def test_the_load_of_a_phase_has_its_rate_and_its_prompts() -> None:
    short, long = (list(islice(LoadPhase(5.0, factor).requests(1, 100.0), 2000)) for factor in (1.0, 6.0))
    assert all(one.t_s > 100.0 for one in short)
    assert 4.5 < len(short) / (short[-1].t_s - 100.0) < 5.5
    assert max(one.isl for one in long) == LONGEST_PROMPT_TOKENS
    assert [min(LONGEST_PROMPT_TOKENS, 6 * one.isl) for one in short] == [one.isl for one in long]


def test_the_command_names_every_step() -> None:
    assert tuple(step.name for step in STEPS) == tour.STEPS
