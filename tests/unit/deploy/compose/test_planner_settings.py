"""Settings: which source wins, where each value came from, and one clear line for each mistake."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose import core_config
from deploy.compose.core_config import planner_config
from deploy.compose.metric_sources import SharedClients, observers, selector
from deploy.compose.planner_settings import load
from deploy.compose.settings_layers import SettingsError
from deploy.compose.settings_loader import Loaded
from planner.domain.config import (
    Covers,
    DeploymentConfig,
    Fallback,
    OperationMode,
    PoolConfig,
    SiteConfig,
    SizingMode,
    WaitFor,
)
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.runtime.config import dynamo_flags
from planner.runtime.config.settings import DeploymentSettings, PoolSettings, Settings, SiteSettings
from planner.runtime.telemetry import planner_metrics
from tests.unit.planner.adapters.test_profiles import write as write_profile

ROOT = Path(__file__).resolve().parents[4]
CHAT = DeploymentId("prod-chat")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A configuration that is right."""
    profile = tmp_path / "profile"
    profile.mkdir()
    write_profile(profile)
    return save(tmp_path, good(profile))


def good(profile: Path) -> dict[str, Any]:
    return {
        "sites": {"row-1": {"budget_watts": 4000}},
        "deployments": {
            "prod-chat": {
                "site": "row-1",
                "model": "llama",
                "profile": str(profile),
                "metrics": {"urls": ["http://frontend:8000/metrics"]},
            }
        },
    }


def save(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "planner.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def changed(file: Path, **changes: Any) -> Path:
    content = yaml.safe_load(file.read_text())
    content["deployments"]["prod-chat"] |= changes
    return save(file.parent, content)


def origin(found: Loaded[Settings], path: str) -> str:
    return next(origin for name, _, origin in found.rows() if name == path)


def problems(file: Path, environ: dict[str, str] | None = None, **flags: Any) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as error:
        planner_config(load(file, flags, environ=environ or {}).settings)
    assert all("\n" not in line for line in error.value.problems)
    return error.value.problems


def test_file_environment_and_flags_in_rising_strength(file: Path) -> None:
    content = yaml.safe_load(file.read_text()) | {"interval_s": 10, "load_time_scale": 2, "kalman": {"r": 3}}
    save(file.parent, content)
    environ = {"WATTSCALE_INTERVAL_S": "20", "WATTSCALE_LOAD_TIME_SCALE": "3", "WATTSCALE_KALMAN__Q_LEVEL": "9"}
    found = load(file, {"adjustment_interval": "30"}, environ=environ)
    assert found.settings.interval_s == 30
    assert found.settings.load_time_scale == 3
    assert (found.settings.kalman.r, found.settings.kalman.q_level) == (3, 9)
    assert origin(found, "interval_s") == "flag --adjustment-interval"
    assert origin(found, "load_time_scale") == "environment WATTSCALE_LOAD_TIME_SCALE"
    assert origin(found, "kalman.r") == str(file)
    assert origin(found, "kalman.q_trend") == "default"


def test_a_setting_of_one_deployment_is_stronger_than_one_of_all_in_the_same_file(file: Path) -> None:
    content = yaml.safe_load(file.read_text()) | {"ttft": 300, "itl": 30}
    content["deployments"]["prod-chat"]["ttft_ms"] = 200
    save(file.parent, content)
    deployment = planner_config(load(file, environ={}).settings).deployments[CHAT]
    assert (deployment.ttft_ms, deployment.itl_ms) == (200, 30)
    by_flag = planner_config(load(file, {"ttft": "100"}, environ={}).settings).deployments[CHAT]
    assert by_flag.ttft_ms == 100


def test_what_a_budget_covers_is_a_setting_of_its_site(file: Path) -> None:
    at = "sites.@.covers"
    assert {site.covers for site in planner_config(load(file, {}, environ={}).settings).sites.values()} == {
        Covers.ALL_GPUS
    }
    found = planner_config(load(file, {}, [f"{at}=workers"], environ={}).settings)
    assert {site.covers for site in found.sites.values()} == {Covers.WORKERS}
    with pytest.raises(SettingsError, match="covers"):
        load(file, {}, [f"{at}=some"], environ={})


def test_dynamos_flags_alone_make_a_planner(file: Path) -> None:
    flags = {
        "namespace": "dynamo-chat",
        "profile_results_dir": str(file.parent / "profile"),
        "prometheus_endpoint": "http://prometheus:9090",
        "total_gpu_power_limit": "1000",
        "prefill_engine_gpu_power_limit": "250",
        "ttft_target": "2000",
        "load_predictor": "kalman",
        "load_predictor_log1p": True,
        "kalman_r": "5",
        "min_endpoint": "2",
        "max_decode_replicas": "8",
        "no_operation": "true",
        "enable_load_scaling": True,
        "no_correction": True,
        "backend": "vllm",
    }
    found = load(None, flags, environ={})
    config = planner_config(found.settings)
    deployment = config.deployments[DeploymentId("dynamo-chat")]
    site = config.sites[SiteId("default")]
    assert (site.budget_mw, site.covers) == (1_000_000, Covers.WORKERS)
    assert site.deployments == {DeploymentId("dynamo-chat")}
    assert deployment.ttft_ms == 2000
    assert deployment.predictor == "kalman+log1p"
    assert deployment.mode is OperationMode.ADVISORY
    assert deployment.sizing is SizingMode.SLA_LOAD
    assert not deployment.correction
    assert {name: pool.min_replicas for name, pool in deployment.pools.items()} == {"prefill": 2, "decode": 2}
    assert deployment.pools[PoolId("decode")].max_replicas == 8
    assert deployment.pools[PoolId("prefill")].curve.max_mw == 250_000
    assert found.notes == ("backend: not needed: engines are recognised by the names of their metrics",)


@pytest.mark.parametrize("flag", [name for flag in dynamo_flags.FLAGS for name in (flag.name, *flag.aliases)])
def test_every_name_of_the_table_is_taken_in_a_file(flag: str, file: Path) -> None:
    values: dict[str, Any] = {
        "mode": "agg",
        "namespace": "prod-chat",
        "load_predictor": "holt",
        "profile_results_dir": "somewhere",
    }
    values |= {"load_predictor_warmup_trace": "a trace", "environment": "virtual", "backend": "vllm"}
    values |= {"throughput_metrics_source": "frontend", "optimization_target": "sla"}
    entry = dynamo_flags.BY_NAME[flag]
    if entry.became.startswith("refused: "):
        return
    value = values.get(entry.name, True if entry.switch else 1)
    if "endpoint" in flag and "prometheus" in flag:
        value = "http://prometheus:9090"
    if entry.name == "metric_pulling_prometheus_extra_query_params":
        value = {"tenant": "a"}
    if entry.name == "model_name":
        value = "llama"
    content = yaml.safe_load(file.read_text()) | {flag.replace("_", "-"): value}
    load(save(file.parent, content), environ={})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"intervals": 1}, "intervals: no such setting; did you mean interval_s?"),
        ({"ttftt": 1}, "ttftt: no such setting; did you mean ttft?"),
        (
            {"sites": {"a": {"budget_wats": 1}}},
            "sites.a.budget_wats: no such setting; did you mean sites.a.budget_watts?",
        ),
        (
            {"deployments": {"a": {"pools": {"prefill": {"behavior": {"scaleUpp": {}}}}}}},
            "behavior.scaleUpp: no such setting; did you mean deployments.a.pools.prefill.behavior.scaleUp?",
        ),
        ({"sizing": "load"}, "sizing: no such setting at this level; it belongs at deployments.*.sizing"),
        (
            {"sites": {"a": {"budget_watts": 1, "min_replicas": 2}}},
            "sites.a.min_replicas: no such setting at this level; it belongs at deployments.*.pools.*.min_replicas",
        ),
        ({"bus": {"server": "x"}}, "bus.server: no such setting; did you mean bus.servers?"),
        ({"prometheus": {"verify": False}}, "prometheus.verify: no such setting; did you mean prometheus.verify_tls?"),
        ({"interval_s": -1}, "interval_s: Input should be greater than 0, not -1"),
        ({"deployments": {"a": {"sizing": "slo"}}}, "deployments.a.sizing: Input should be 'sla', 'classic', 'load'"),
        ({"mode": "both"}, "'both' is none of disagg, prefill, decode, agg"),
    ],
)
def test_what_is_not_known_is_refused_by_name_with_the_nearest(
    tmp_path: Path, content: dict[str, Any], said: str
) -> None:
    with pytest.raises(SettingsError) as error:
        load(save(tmp_path, content), environ={})
    assert said in "; ".join(error.value.problems)


def test_a_misspelt_variable_is_refused_and_a_foreign_one_is_left_alone(file: Path) -> None:
    with pytest.raises(SettingsError, match="WATTSCALE_INTERVALS: no such setting; did you mean WATTSCALE_INTERVAL_S"):
        load(file, environ={"WATTSCALE_INTERVALS": "1"})
    load(file, environ={"WATTSCALE_NATS_URL": "nats://x", "WATTSCALE_AGENT_NODE": "n"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"site": "row-2"}, "deployments.prod-chat.site: no site 'row-2'; there are: row-1"),
        ({"predictor": "oracle"}, "deployments.prod-chat.predictor: no forecast model 'oracle'"),
        ({"gpu": "tpu"}, "no figures for GPU type 'tpu'; known: a100, h100"),
        ({"metrics": {}}, "no urls to scrape and no prometheus.url to ask"),
        ({"metrics": {"source": "scrape"}}, "metrics.urls: none to scrape"),
        (
            {"metrics": {"urls": ["frontend:8000"]}},
            "metrics.urls: 'frontend:8000' is not an address; write http://host",
        ),
        ({"profile": "nowhere"}, "nowhere: no such folder"),
        ({"profile": None}, "profile: none; name a folder"),
        (
            {"pools": {"big": {}}},
            "pools.big: its name is not a role; set role: prefill, decode, aggregated or frontend",
        ),
        ({"pools": {"prefill": {"min_replicas": 3, "max_replicas": 2}}}, "max_replicas 2 is below min_replicas 3"),
        ({"pools": {"prefill": {"max_cap_watts": 100}}}, "max_cap_watts 100 is below the GPU's minimum 200 W"),
    ],
)
def test_what_cannot_run_is_reported_with_its_place(file: Path, changes: dict[str, Any], said: str) -> None:
    assert said in "; ".join(problems(changed(file, **changes)))


def test_all_problems_are_reported_at_once(file: Path) -> None:
    found = problems(changed(file, site="x", predictor="y", profile="z"))
    assert len(found) == 3


def test_a_node_that_another_sites_pattern_takes_too_is_refused(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    content["sites"]["row-1"]["nodes"] = ["rack1-*", "rack2-*"]
    content["sites"]["row-2"] = {"budget_watts": 9000, "nodes": ["rack1-node3", "rack3-*"]}
    found = "; ".join(problems(save(file.parent, content)))
    assert "sites.row-1.nodes and sites.row-2.nodes both take rack1-node3: watts counted twice" in found


def test_sites_must_not_share_nodes_and_zones_must_exist(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    window = {"start": "08:00", "end": "18:30", "budget_watts": 3000, "weekdays": ["mon"]}
    content["sites"]["row-2"] = {"budget_watts": 1, "schedule": {"zone": "Mars/Base", "windows": [window]}}
    found = "; ".join(problems(save(file.parent, content)))
    assert "sites.row-1.nodes and sites.row-2.nodes both take *" in found
    assert "no time zone 'Mars/Base'" in found


@pytest.mark.parametrize(
    ("site", "said"),
    [
        ({"lease_s": 4}, "sites.row-1: lease_s 4 is too short"),
        ({"smallest_budget_watts": 5000}, "smallest_budget_watts 5000 is above a budget that is set, 4000"),
        (
            {"fallback_watts": 300, "expected_gpus": 16},
            "fallback_watts 300 of 16 GPUs come to 4800 W: more than the smallest budget, 4000 W",
        ),
    ],
)
def test_numbers_that_cannot_keep_the_promise_are_refused(file: Path, site: dict[str, Any], said: str) -> None:
    content = yaml.safe_load(file.read_text())
    content["sites"]["row-1"] |= site
    assert said in "; ".join(problems(save(file.parent, content)))


def test_a_prometheus_that_cannot_be_asked_is_refused(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    content["prometheus"] = {"url": "prometheus:9090", "bearer_token_file": "/nowhere/token"}
    found = problems(save(file.parent, content))
    assert "prometheus.url: 'prometheus:9090' is not an address; write http://host:port/path" in found
    assert "prometheus.bearer_token_file: no file /nowhere/token" in found


def test_a_full_configuration_reaches_the_core_unchanged(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    window = {"start": "22:00", "end": "06:00", "budget_watts": 3000, "weekdays": ["mon", "sun"]}
    content["sites"]["row-1"] |= {"schedule": {"zone": "Europe/Oslo", "windows": [window]}, "nodes": ["node-*"]}
    down = {
        "stabilizationWindowSeconds": 120,
        "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
        "selectPolicy": "Min",
        "tolerance": 0.05,
    }
    content["deployments"]["prod-chat"] |= {
        "fallback": "replicas",
        "load": {"decode_kv_up": 0.8},
        "pools": {
            "prefill": {"behavior": {"scaleDown": down}, "fallback_replicas": 3},
            "big": {"role": "decode", "gpus_per_replica": 4, "max_step": 2},
        },
    }
    config = planner_config(load(save(file.parent, content), environ={}).settings)
    schedule = config.sites[SiteId("row-1")].schedule
    assert schedule is not None
    assert (schedule.windows[0].start_minute, schedule.windows[0].end_minute) == (22 * 60, 6 * 60)
    assert schedule.windows[0].weekdays == (0, 6)
    deployment = config.deployments[CHAT]
    assert deployment.fallback is Fallback.REPLICAS
    assert deployment.load.decode_kv_up == 0.8
    prefill, big = deployment.pools[PoolId("prefill")], deployment.pools[PoolId("big")]
    assert prefill.scale_down.stabilization_window_s == 120
    assert prefill.scale_down.select == "Min"
    assert prefill.scale_down.policies[0].kind == "Percent"
    assert prefill.up_window_s == 0
    assert (big.gpus_per_replica, big.max_step, big.down_window_s) == (4, 2, 300)


def test_secrets_are_masked_and_still_reach_the_client(file: Path) -> None:
    environ = {
        "WATTSCALE_PROMETHEUS__BEARER_TOKEN": "s3cret",
        "WATTSCALE_PROMETHEUS__URL": "https://me:s3cret@prometheus",
    }
    found = load(file, environ=environ)
    assert "s3cret" not in json.dumps([[path, value] for path, value, _ in found.rows()])
    assert found.settings.prometheus.bearer_token.get_secret_value() == "s3cret"


async def test_observers_share_one_client_and_close_apart(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    content["deployments"]["prod-two"] = content["deployments"]["prod-chat"] | {"metrics": {}}
    content["prometheus"] = {"url": "http://prometheus:9090"}
    settings = load(save(file.parent, content), environ={}).settings
    shared = SharedClients(settings)
    made = observers(settings, shared)
    assert [type(observer).__name__ for observer in made] == ["EngineScraper", "PrometheusObserver"]
    assert shared.prometheus() is shared.prometheus()
    assert selector("prod-chat", settings.deployments["prod-chat"]).namespace == "prod-chat"
    for observer in made:
        await observer.close()
    await shared.close()


@pytest.mark.parametrize(
    ("page", "text"),
    [("planner/DYNAMO_FLAGS.md", dynamo_flags.page()), ("planner/METRICS.md", planner_metrics.page())],
)
def test_generated_pages_have_not_drifted(page: str, text: str) -> None:
    assert (ROOT / page).read_text() == text, f"write it anew: {page}"


def test_the_example_of_the_page_is_right(file: Path) -> None:
    text = (ROOT / "planner/README.md").read_text()
    content = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    content["deployments"]["prod-chat"]["profile"] = str(file.parent / "profile")
    for name in ("bearer_token_file", "ca_file"):
        content["prometheus"][name] = str(file)
    config = planner_config(load(save(file.parent, content), environ={}).settings)
    assert config.deployments[CHAT].pools[PoolId("decode")].scale_down.policies[0].value == 25
    assert config.sites[SiteId("row-1")].nodes == ("gpu-node-*",)


NOT_SET_BY_PEOPLE = {
    DeploymentConfig: {"deployment", "other_pools", "past_load"},
    PoolConfig: {"pool", "curve", "scale_up", "scale_down"},
    SiteConfig: {"site", "utc_at_zero_s", "deployments"},
}
"""Names, and what is derived: pools without GPUs by their role, a site's deployments by theirs, past load
by ``history``, the power curve from ``gpu`` and ``power_curve``, the rules from ``behavior``."""


@pytest.mark.parametrize(
    ("config", "block"),
    [(DeploymentConfig, DeploymentSettings), (PoolConfig, PoolSettings), (SiteConfig, SiteSettings)],
)
def test_everything_that_the_core_knows_can_be_set_and_has_one_default(config: Any, block: Any) -> None:
    """A field that no setting reaches would be an option that does nothing."""
    for field in fields(config):
        if field.name in NOT_SET_BY_PEOPLE[config]:
            continue
        ours = field.name.replace("_mw_per_node", "_watts_per_node").replace("_mw", "_watts")
        assert ours in block.model_fields, f"{config.__name__}.{field.name} cannot be set"
        theirs, default = field.default, block.model_fields[ours].default
        if theirs is MISSING or default is None or not isinstance(default, bool | int | float | str):
            continue
        scale = 1000 if field.name != ours else 1
        assert (default * scale if scale > 1 else default) == theirs, field.name


def test_a_profiles_measured_power_curve_replaces_the_published_one_and_a_pools_own_replaces_both(file: Path) -> None:
    block = {"p_s_watts": 150, "p_u_watts": 550, "alpha": 0.5, "idle_watts": 80, "min_watts": 200, "max_watts": 700}
    curve_file = file.parent / "profile" / "power_curve.json"
    curve_file.write_text(json.dumps({"curves": {"prefill": {**block, "useful_watts": 300}}}))
    own = {**block, "p_u_watts": 600, "useful_watts": 250}

    def pools(path: Path) -> dict[str, tuple[int, int]]:
        found = planner_config(load(path, {}, environ={}).settings).deployments[CHAT].pools
        return {pool: (each.curve.p_u_mw, each.curve.useful_mw) for pool, each in found.items()}

    assert pools(file) == {"prefill": (550_000, 300_000), "decode": (511_000, 350_000)}
    by_hand = pools(changed(file, pools={"prefill": {"power_curve": own}, "decode": {}}))
    assert by_hand == {"prefill": (600_000, 250_000), "decode": (511_000, 350_000)}
    curve_file.write_text("{")
    assert "power_curve.json: cannot be read as JSON" in problems(file)[0]


def test_a_recorded_trace_is_learned_from_and_a_bad_one_refused(file: Path) -> None:
    trace = file.parent / "trace.csv"
    trace.write_text("timestamp_ms,input_length,output_length\n0,100,10\n1500,200,20\n")
    config = planner_config(load(changed(file), {"load_predictor_warmup_trace": str(trace)}, environ={}).settings)
    assert [(one.t_s, one.isl) for one in config.deployments[CHAT].history] == [(0.0, 100), (1.5, 200)]
    trace.write_text("nothing\n")
    assert "deployments.prod-chat.history: " in problems(changed(file, history=str(trace)))[0]


def test_weights_of_a_site_reach_the_optimiser() -> None:
    from deploy.compose.sites import site
    from planner.runtime.config.settings import SiteSettings

    block = SiteSettings.model_validate({"budget_watts": 1000, "weights": {"energy": 0, "gpu": 50}})
    weights = site("row", block).weights
    assert (weights.energy, weights.gpu, weights.churn) == (0, 50, 100)


@pytest.mark.parametrize("sizing", ["classic", "load"])
def test_a_promised_share_needs_a_mode_whose_quantile_it_can_move(file: Path, sizing: str) -> None:
    assert problems(changed(file, sizing=sizing, slo_share=0.97)) == (
        f"deployments.prod-chat.slo_share: sizing {sizing} has no quantile to move; remove it, or set sizing: sla",
    )
    kept = planner_config(load(changed(file, sizing="sla"), environ={}).settings).deployments
    assert [one.slo_share for one in kept.values()] == [0.97]


@pytest.mark.parametrize(("text", "port"), [("0", 0), ("none", None), ("null", None), ("9091", 9091)])
def test_a_port_of_0_is_the_systems_choice_and_none_is_off_as_in_the_agent(
    file: Path, text: str, port: int | None
) -> None:
    assert load(file, {}, [f"health.port={text}"]).settings.health.port == port


def test_classic_without_its_library_is_refused_before_anything_starts(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core_config, "CLASSIC_LIBRARY", "scipy_that_is_not_installed")
    found = problems(changed(file, sizing="classic"))
    assert found == (
        "deployments.prod-chat.sizing: classic needs scipy_that_is_not_installed; pip install 'wattscale[classic]'",
    )
    planner_config(load(changed(file, sizing="sla"), environ={}).settings)


@pytest.mark.parametrize(
    ("given", "waits"),
    [
        ({}, WaitFor.NOTHING),
        ({"wait_for": "ready"}, WaitFor.READY),
        ({"wait_for_scaling": True}, WaitFor.COMPLETE),
        ({"wait_for_scaling": False, "sizing": "load"}, WaitFor.NOTHING),
        ({"sizing": "load"}, WaitFor.COMPLETE),
        ({"caps": "fixed", "max_cap_watts": 500}, WaitFor.COMPLETE),
    ],
)
def test_what_a_newer_decision_waits_for(file: Path, given: dict[str, Any], waits: WaitFor) -> None:
    cap = given.pop("max_cap_watts", None)
    pools = {"pools": {"prefill": {"max_cap_watts": cap}, "decode": {"max_cap_watts": cap}}} if cap else {}
    config = planner_config(load(changed(file, **given, **pools), environ={}).settings)
    assert config.deployments[CHAT].waits_for is waits


def test_a_site_short_by_the_published_rule_waits_for_completion(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    content["sites"]["row-1"]["shortage"] = "proportional"
    config = planner_config(load(save(file.parent, content), environ={}).settings)
    assert config.deployments[CHAT].waits_for is WaitFor.COMPLETE


def test_both_names_of_one_setting_are_one_too_many(file: Path) -> None:
    (line,) = problems(changed(file, wait_for="ready", wait_for_scaling=True))
    assert "wait_for_scaling: the former name of wait_for" in line
