"""The planner's metrics page, from decisions alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from planner.core.state import PlannerState
from planner.core.step import step
from planner.domain.observation import Observation
from planner.domain.plan import Plan
from planner.domain.reading import NO_DATA, Sample
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.telemetry.instruments import Instruments
from planner.runtime.telemetry.liveness import Liveness
from tests.unit.planner.core.small_site import D, SmallSite, deployment, planner, traffic


def test_iterations_are_counted_by_cause_under_the_former_name_too() -> None:
    instruments = Instruments(planner(), Liveness())
    try:
        for tick in (True, False, False):
            instruments.watch(DecisionEvent(Observation(), Plan(), PlannerState(1, 0.0), 10.0, tick, 1))
        page = instruments.page().decode()
    finally:
        instruments.close()
    for name in ("wattscale_planner_iterations_total", "wattscale_planner_looks_total"):
        assert f'{name}{{cause="tick"}} 1.0' in page
        assert f'{name}{{cause="event"}} 2.0' in page


class TwoTerms:
    """A page, and a planner whose terms the test begins and ends."""

    def __init__(self) -> None:
        self.vitals = Liveness()
        self.site = SmallSite(planner(budget_mw=9_000_000))
        self.site.run_pods(prefill=1, decode=1)
        self.page = Instruments(self.site.config, self.vitals, {D: "llama"})

    def decide(self, epoch: int, now_s: float) -> None:
        site = self.site
        seen = site.observation(traffic(2.0))
        site.state, plan = step(site.state, seen, site.config, site.config.clock(now_s))
        self.page.watch(DecisionEvent(seen, plan, site.state, now_s, tick=True, epoch=epoch))

    def shown(self) -> set[str]:
        """The names on the page that have a value."""
        lines = self.page.page().decode().splitlines()
        return {line.partition("{")[0].partition(" ")[0] for line in lines if line and not line.startswith("#")}

    def gpu_hours(self) -> float:
        lines = self.page.page().decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.startswith("dynamo_planner_gpu_hours{"))


@pytest.fixture
def terms() -> Iterator[TwoTerms]:
    found = TwoTerms()
    yield found
    found.page.close()


OF_PLANS = ("wattscale_planner_replicas", "wattscale_site_watts", "dynamo_planner_", "planner:", "dynamo_request_rate")


def of_plans(names: set[str]) -> set[str]:
    """Those that only a leader may show: with a value of two planners each, a sum over both counts twice."""
    return {name for name in names if name.startswith(OF_PLANS)}


def test_gauges_of_plans_leave_the_page_with_the_lead_and_come_back_with_the_next_decision(terms: TwoTerms) -> None:
    terms.vitals.leading(7, 0.0)
    terms.decide(7, 30.0)
    led = of_plans(terms.shown())
    assert {stem for stem in OF_PLANS if any(name.startswith(stem) for name in led)} == set(OF_PLANS)
    terms.vitals.leading(None, 40.0)
    assert of_plans(terms.shown()) == set()
    assert {"wattscale_planner_leading", "wattscale_planner_iterations_total"} <= terms.shown()
    terms.vitals.leading(9, 1000.0)
    assert of_plans(terms.shown()) == set(), "plans of an earlier term"
    terms.decide(9, 1030.0)
    assert of_plans(terms.shown()) == led


def test_hours_while_another_planner_led_do_not_count(terms: TwoTerms) -> None:
    for epoch, seconds in ((7, (0.0, 3600.0)), (9, (36_000.0, 39_600.0))):
        terms.vitals.leading(epoch, seconds[0])
        for now_s in seconds:
            terms.decide(epoch, now_s)
    assert terms.gpu_hours() == pytest.approx(4.0), "two hours of two GPUs"


def test_a_promised_share_is_on_the_page_with_its_error_budget() -> None:
    site = SmallSite(planner(deployment(slo_share=0.97), budget_mw=9_000_000))
    site.run_pods(prefill=1, decode=1)
    vitals = Liveness()
    vitals.epoch = 1
    page = Instruments(site.config, vitals)
    try:
        for good in (Sample(0.9), Sample(1.0), NO_DATA):
            seen = site.observation(traffic(2.0, ttft_within=good, itl_within=Sample(1.0)))
            site.state, plan = step(site.state, seen, site.config, site.config.clock(site.now_s))
            page.watch(DecisionEvent(seen, plan, site.state, site.now_s, tick=True, epoch=1))
            site.pass_time(30)
        lines = page.page().decode().splitlines()
    finally:
        page.close()
    values = {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}
    of_d = f'{{deployment="{D}"}}'
    assert values[f"wattscale_planner_slo_share{of_d}"] == 0.97
    assert 0.95 < values[f"wattscale_planner_sizing_quantile{of_d}"] < 0.96
    assert values[f"wattscale_planner_judged_requests_total{of_d}"] == pytest.approx(120.0)
    assert values[f"wattscale_planner_late_requests_total{of_d}"] == pytest.approx(6.0)
    assert values[f'wattscale_planner_error_budget_left{{deployment="{D}",period="day"}}'] == pytest.approx(1 - 6 / 3.6)
    assert values[f"wattscale_planner_burn_rate{of_d}"] == pytest.approx(6 / 3.6, rel=0.02)
