"""How watts enter a plan, by settings: fixed caps, the proportional cut, or none at all."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.cli.run.planner import warnings
from deploy.compose.core_config import planner_config
from deploy.compose.planner_settings import load
from deploy.compose.settings_layers import SettingsError
from planner.core.intake import initial_state
from planner.core.step import step
from planner.domain.config import DeploymentConfig, PlannerConfig, Shortage
from planner.domain.observation import Observation
from planner.domain.plan import DeploymentPlan, Plan, PowerCut
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.offline import OfflinePlanner
from planner.runtime.telemetry.decision_log import DecisionLog
from tests.unit.planner.adapters.test_profiles import write as write_profile
from tests.unit.planner.core.small_site import DECODE, PREFILL, D, planner

INTERVAL = {"num_req": 3000, "isl": 3000, "osl": 150, "ttft_ms": 200, "itl_ms": 20}


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    write_profile(tmp_path)
    return tmp_path


def composed(profile: Path, *overrides: str, **flags: Any) -> PlannerConfig:
    flags = {"profile_results_dir": str(profile), **flags}
    return planner_config(load(None, flags, overrides, environ={}).settings, offline=True)


def only(config: PlannerConfig) -> DeploymentConfig:
    return next(iter(config.deployments.values()))


def test_fixed_caps_are_the_watts_that_the_pools_name(profile: Path) -> None:
    flags = {"prefill_engine_gpu_power_limit": "250", "decode_engine_gpu_power_limit": "412.5"}
    config = composed(profile, "deployments.*.caps=fixed", total_gpu_power_limit="4000", **flags)
    curves = {name: pool.curve for name, pool in only(config).pools.items()}
    assert [(c.useful_mw, c.max_mw) for c in curves.values()] == [(250_000, 250_000), (412_500, 412_500)]
    offline = OfflinePlanner(config, only(config).deployment)
    assert offline.decide(INTERVAL)["cap_watts"] == {"prefill": 250.0, "decode": 412.5}


def test_joint_caps_take_the_same_watts_as_a_bound(profile: Path) -> None:
    config = composed(profile, total_gpu_power_limit="4000", decode_engine_gpu_power_limit="412.5")
    curve = only(config).pools[DECODE].curve
    assert (curve.useful_mw, curve.max_mw) == (350_000, 412_500)


def test_fixed_caps_without_watts_are_refused(profile: Path) -> None:
    with pytest.raises(SettingsError) as error:
        composed(profile, "deployments.*.caps=fixed", total_gpu_power_limit="4000")
    assert [line.partition(": ")[2] for line in error.value.problems] == [
        "caps: fixed needs max_cap_watts: the watts of each GPU"
    ] * 2


def test_the_proportional_cut_is_a_setting_of_the_site(profile: Path) -> None:
    config = composed(profile, "sites.@.shortage=proportional", total_gpu_power_limit="4000")
    assert [site.shortage for site in config.sites.values()] == [Shortage.PROPORTIONAL]
    assert [site.shortage for site in composed(profile, total_gpu_power_limit="1").sites.values()] == [Shortage.JOINT]


@pytest.mark.parametrize("overrides", [(), ("sites.@.budget_watts=4000", "power_aware=false")])
def test_without_power_replicas_are_planned_and_no_watts(profile: Path, overrides: tuple[str, ...]) -> None:
    config = composed(profile, *overrides)
    assert config.sites == {}
    line = OfflinePlanner(config, only(config).deployment).decide(INTERVAL)
    assert line["cap_watts"] == {}
    assert int(str(line["num_prefill"])) > 1
    observation = Observation()
    _, plan = step(initial_state(config, 1, 0.0, (), ()), observation, config, config.clock(0.0))
    assert plan.power == ()


def test_a_site_that_is_named_must_exist(profile: Path) -> None:
    with pytest.raises(SettingsError, match=r"site: no site 'row-1'; there are: none"):
        composed(profile, "deployments.*.site=row-1")


def test_what_a_planner_does_not_do_is_logged_at_its_start(profile: Path) -> None:
    flags = {"profile_results_dir": str(profile)}

    def found(*overrides: str) -> list[str]:
        settings = load(None, flags, overrides, environ={}).settings
        return warnings(settings, planner_config(settings, offline=True))

    assert found("sites.@.budget_watts=4000") == []
    assert found() == ["no watts are planned and no cap is sent: no site has a budget_watts"]
    assert found("power_aware=false") == ["no watts are planned and no cap is sent: power_aware is off"]
    (advised,) = found("sites.@.budget_watts=4000", "deployments.*.mode=advisory")
    assert "unless they have hold_without_decision" in advised


@pytest.mark.parametrize(("overrides", "released"), [((), True), (("power_off=keep",), False)])
def test_switching_power_off_gives_caps_back_unless_asked(
    profile: Path, overrides: tuple[str, ...], released: bool
) -> None:
    assert composed(profile, "power_aware=false", *overrides).release_caps == released
    assert not composed(profile, *overrides).release_caps, "a missing site is not a command to give caps back"


def test_a_cut_is_logged_in_the_two_lines_of_the_guide(caplog: pytest.LogCaptureFixture) -> None:
    cut = PowerCut(1_250_000, 1_000_000, {PREFILL: 3, DECODE: 2}, {PREFILL: 2, DECODE: 1})
    plan = Plan({D: replace(DeploymentPlan(D, {}), power_cut=cut)})
    state = initial_state(planner(), 1, 0.0, (), ())
    with caplog.at_level(logging.INFO, "planner.decisions"):
        DecisionLog().watch(DecisionEvent(Observation(), plan, state, 0.0, tick=True, epoch=1))
    assert [(record.levelname, record.getMessage()) for record in caplog.records[:2]] == [
        ("WARNING", "Power budget exceeded: 1250W > 1000W"),
        ("INFO", "Scaling down: prefill 3→2, decode 2→1"),
    ]
