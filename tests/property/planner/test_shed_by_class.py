"""What a gateway should shed by class of service adds up to what it should shed by deployment."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.core.good_shares import with_classes
from planner.core.sizing.load_forecast import RATE
from planner.domain.config import DeploymentConfig
from planner.domain.ids import DeploymentId, SiteId
from planner.domain.plan import ClassShed, DeploymentPlan, Forecast, ShedAdvice
from tests.unit.planner.core.small_site import deployment

CLASSES = st.sampled_from([None, "batch", "interactive", "search"])
SITES = st.sampled_from([SiteId("row-1"), SiteId("row-2")])
SHARES = st.floats(0.0, 1.0)
RATES = st.just(0.0) | st.floats(1e-3, 1e4)
ONE = st.tuples(CLASSES, SITES, RATES, st.none() | st.tuples(SHARES, SHARES))
Site = tuple[dict[DeploymentId, DeploymentPlan], dict[DeploymentId, DeploymentConfig]]


def plan(name: DeploymentId, rate: float | None, short: tuple[float, float] | None) -> DeploymentPlan:
    """A deployment at a forecast rate of which shares ``short`` are late, and are to be shed."""
    forecasts = {} if rate is None else {RATE: Forecast(rate, rate, rate, 30.0, "flat")}
    shed = None if short is None else ShedAdvice(0, *short, None if rate is None else short[1] * rate)
    return DeploymentPlan(name, {}, forecasts=forecasts, shed=shed)


def site_of(ones: list[tuple[str | None, SiteId, float, tuple[float, float] | None]]) -> Site:
    plans, configs = {}, {}
    for index, (service_class, site, rate, short) in enumerate(ones):
        name = DeploymentId(f"d{index}")
        plans[name] = plan(name, rate, short)
        configs[name] = deployment(deployment=name, site=site, service_class=service_class)
    return plans, configs


@given(st.lists(ONE, max_size=8))
def test_classes_and_deployments_without_one_add_up_to_all_that_is_shed(
    ones: list[tuple[str | None, SiteId, float, tuple[float, float] | None]],
) -> None:
    plans, configs = site_of(ones)
    total, grouped = defaultdict[SiteId, float](float), dict[tuple[SiteId, str], ClassShed]()
    for name, made in with_classes(plans, configs).items():
        site = configs[name].site
        if made.shed is not None:
            if configs[name].service_class is not None:
                total[site] += made.shed.shed_req_per_s or 0.0
            for service_class, one in made.shed.by_class.items():
                # Whichever record of the site a gateway reads, it says the same.
                assert grouped.setdefault((site, service_class), one) == one
    for site, shed in total.items():
        known = sum(one.shed_req_per_s or 0.0 for (at, _), one in grouped.items() if at == site)
        assert known == pytest.approx(shed)


@given(st.lists(ONE, max_size=8))
def test_shares_of_a_class_lie_between_those_of_its_deployments(
    ones: list[tuple[str | None, SiteId, float, tuple[float, float] | None]],
) -> None:
    plans, configs = site_of(ones)
    for name, made in with_classes(plans, configs).items():
        for service_class, one in (made.shed.by_class if made.shed else {}).items():
            own = [
                plans[member].shed
                for member, config in configs.items()
                if config.service_class == service_class and config.site == configs[name].site
            ]
            if one.shed_share is not None and one.late_share is not None:
                shed, late = ([getattr(each, key, 0.0) for each in own] for key in ("shed_share", "late_share"))
                assert min(shed) - 1e-9 <= one.shed_share <= max(shed) + 1e-9
                assert min(late) - 1e-9 <= one.late_share <= max(late) + 1e-9
            else:
                assert not any(
                    rate for called, at, rate, _ in ones if called == service_class and at == configs[name].site
                )


def test_a_class_names_what_arrives_and_what_is_shed_of_it() -> None:
    chat, agents, night = (DeploymentId(name) for name in ("chat", "agents", "night"))
    plans = {chat: plan(chat, 40.0, (0.3, 0.15)), agents: plan(agents, 20.0, None), night: plan(night, 5.0, None)}
    configs = {name: deployment(deployment=name, service_class="interactive") for name in (chat, agents)}
    configs[night] = deployment(deployment=night, service_class="batch")
    made = with_classes(plans, configs)
    shed = made[chat].shed
    assert shed is not None
    assert set(shed.by_class) == {"interactive"}, "nothing is shed of a class that serves all its load"
    one = shed.by_class["interactive"]
    assert one.req_per_s == 60.0
    assert (one.late_share, one.shed_share, one.shed_req_per_s) == pytest.approx((0.2, 0.1, 6.0))
    assert made[agents].shed is None
    assert made[agents] == plans[agents]


def test_a_class_is_not_counted_while_the_rate_of_a_short_deployment_is_not_known() -> None:
    chat, agents = DeploymentId("chat"), DeploymentId("agents")
    plans = {chat: plan(chat, 40.0, (0.3, 0.15)), agents: plan(agents, None, (0.5, 0.5))}
    configs = {name: deployment(deployment=name, service_class="interactive") for name in plans}
    shed = with_classes(plans, configs)[chat].shed
    assert shed is not None
    assert shed.by_class == {"interactive": ClassShed()}
