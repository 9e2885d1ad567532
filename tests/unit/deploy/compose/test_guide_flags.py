"""Every flag of the guides and of two of Dynamo's releases changes a setting, or is refused or warned about by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose.core_config import planner_config
from deploy.compose.planner_settings import load
from deploy.compose.settings_layers import SettingsError
from planner.domain.config import SizingMode
from planner.runtime.config import dynamo_flags
from planner.runtime.config.guide_defaults import GUIDE_DEFAULTS, PROMETHEUS
from tests.shared_data import shared
from tests.unit.planner.adapters.test_profiles import write as write_profile

RELEASE_0_9_1 = """environment namespace backend no-operation log-dir adjustment-interval max-gpu-budget min-endpoint
decode-engine-num-gpu prefill-engine-num-gpu profile-results-dir ttft itl load-predictor load-predictor-log1p
prophet-window-size load-predictor-warmup-trace kalman-q-level kalman-q-trend kalman-r kalman-min-points
metric-pulling-prometheus-endpoint metric-reporting-prometheus-port no-correction model-name"""
RELEASE_1_6_1 = """pre_deployment_sweeping_mode environment namespace backend mode optimization_target log_dir
throughput_adjustment_interval_seconds max_throughput_scaling_replicas max_gpu_budget min_gpu_budget min_endpoint
prefill_min_endpoint decode_min_endpoint control_api_port decode_engine_num_gpu prefill_engine_num_gpu
profile_results_dir aic_interpolation ais_perf_model ttft_ms itl_ms load_predictor load_predictor_log1p
prophet_window_size load_predictor_warmup_trace kalman_q_level kalman_q_trend kalman_r kalman_min_points
metric_pulling_prometheus_endpoint metric_pulling_prometheus_token metric_pulling_prometheus_token_file
metric_pulling_prometheus_ssl_verify metric_pulling_prometheus_extra_query_params metric_pulling_prometheus_ca_bundle
metric_pulling_prometheus_request_timeout_seconds metric_reporting_prometheus_port throughput_metrics_source model_name
global_planner_namespace enable_throughput_scaling enable_load_scaling load_adjustment_interval_seconds
max_num_fpm_samples fpm_sample_bucket_size load_scaling_down_sensitivity prefill_scale_up_queue_tokens
prefill_scale_down_queue_tokens decode_scale_up_kv_rate decode_scale_down_kv_rate load_min_observations
speculative_nextn advisory enable_power_awareness total_gpu_power_limit report_interval_hours report_output_dir
report_filename report_write_gzip_log live_dashboard_port scheduling plugin_registration"""
GUIDES = """enable-power-awareness total-gpu-power-limit prefill-engine-gpu-power-limit decode-engine-gpu-power-limit
isl osl ttft-target itl-target max-prefill-replicas max-decode-replicas min-prefill-replicas min-decode-replicas
metric-pulling-interval min-gpu-budget decode-kv-scale-up-threshold decode-kv-scale-down-threshold
prefill-queue-scale-up-threshold prefill-queue-scale-down-threshold served-model-name"""
EVERY = sorted({dynamo_flags.normal(name) for text in (RELEASE_0_9_1, RELEASE_1_6_1, GUIDES) for name in text.split()})

VALUES: dict[str, Any] = {
    "environment": "kubernetes",
    **dict.fromkeys(("profile_results_dir", "load_predictor_warmup_trace", "log_dir"), "somewhere"),
    "namespace": "other",
    "backend": "vllm",
    "mode": "agg",
    "optimization_target": "load",
    "load_predictor": "holt",
    "model_name": "llama",
    "served_model_name": "llama",
    "throughput_metrics_source": "router",
    "enable_throughput_scaling": "false",
    "enable_power_awareness": "false",
    "metric_pulling_prometheus_ssl_verify": "false",
    "metric_pulling_prometheus_extra_query_params": {"tenant": "a"},
    "decode_kv_scale_up_threshold": 0.7,
    "decode_kv_scale_down_threshold": 0.3,
    "decode_scale_up_kv_rate": 70,
    "decode_scale_down_kv_rate": 30,
}


def value_of(name: str) -> Any:
    flag = dynamo_flags.BY_NAME[name]
    if name in VALUES:
        return VALUES[name]
    if "endpoint" in name and "prometheus" in name:
        return "http://prometheus:1"
    return True if flag.switch else 7


def test_no_flag_of_the_guides_and_releases_is_unknown() -> None:
    assert not [name for name in EVERY if name not in dynamo_flags.BY_NAME]


@pytest.mark.parametrize("name", sorted(dynamo_flags.BY_NAME))
def test_a_flag_changes_a_setting_or_is_refused_or_warned_about_by_name(name: str) -> None:
    flag = dynamo_flags.BY_NAME[name]
    if flag.became.startswith("refused: "):
        with pytest.raises(SettingsError, match=f"--{name.replace('_', '-')}: refused: .*; use ") as error:
            load(None, {name: value_of(name)}, environ={})
        assert len(error.value.problems) == 1
        return
    changed = load(None, {name: value_of(name)}, environ={})
    plain = load(None, {}, environ={})
    if changed.notes:
        assert flag.to is None or flag.warned
        assert changed.notes == (f"{flag.name}: {flag.became}",)
        assert "not needed: " in flag.became, "says what to use instead, or why nothing is needed"
    else:
        assert changed.settings != plain.settings


@pytest.mark.parametrize(("name", "wrong"), [("environment", "cloud"), ("backend", "tgi"), ("mode", "both")])
def test_a_value_that_no_release_knows_is_refused(name: str, wrong: str) -> None:
    with pytest.raises(SettingsError, match=f"--{name}: '{wrong}' is none of "):
        load(None, {name: wrong}, environ={})


SEEDS = {"001": "planner", "003": "planner", "004": "load"}
"""The guides whose flags a planner takes as they stand, and whose defaults go with them."""
PRINTED_DEFAULTS = {("namespace", "dynamo"), ("no-operation", "false")}
"""What these guides print changes nothing: it is the default here as there."""


def printed_flags(guide: str) -> list[tuple[str, str]]:
    """(name, value) of every planner flag that a guide prints with a value."""
    (file,) = shared("../seeds").glob(f"{guide}_*.txt")
    pairs = re.findall(r"--(?:Planner\.)?([a-z][a-z0-9-]+)(?:=|`? \| `)([\w.]+)", file.read_text(encoding="utf-8"))
    return sorted({(name, value) for name, value in pairs if dynamo_flags.normal(name) in dynamo_flags.BY_NAME})


@pytest.mark.parametrize("guide", sorted(SEEDS))
def test_each_flag_that_a_guide_prints_is_taken_with_the_value_it_prints(guide: str) -> None:
    found = printed_flags(guide)
    assert len(found) >= {"001": 8, "003": 9, "004": 3}[guide], found
    for name, value in found:
        loaded = load(None, {name.replace("-", "_"): value}, environ={}, guide=SEEDS[guide])
        plain = load(None, {}, environ={}, guide=SEEDS[guide])
        assert loaded.notes or loaded.origins != plain.origins or (name, value) in PRINTED_DEFAULTS, name


@pytest.fixture
def profile(tmp_path: Path) -> str:
    folder = tmp_path / "profile"
    folder.mkdir()
    write_profile(folder)
    return str(folder)


def saved(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "planner.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_section_of_a_graph_and_of_a_request_give_the_same_settings(tmp_path: Path) -> None:
    graph = load(
        saved(
            tmp_path,
            {"Planner": {"namespace": "dynamo", "environment": "local", "no-operation": False, "log-dir": "a/b"}},
        )
    )
    assert graph.settings.tensorboard_dir == Path("a/b")
    assert graph.settings.deployments["dynamo"].mode == "active"
    request = load(saved(tmp_path, {"planner": {"plannerMinEndpoint": 2, "planner_max_gpu_budget": 6}}))
    block = request.settings.deployments["dynamo"]
    assert {pool.min_replicas for pool in block.pools.values()} == {2}
    assert block.max_gpus == 6
    with pytest.raises(SettingsError, match=r"Planner\.adjustment_intervall: no such setting; did you mean"):
        load(saved(tmp_path, {"Planner": {"adjustment_intervall": 3}}))


def test_fewest_gpus_are_fewest_replicas_of_every_pool(profile: str) -> None:
    flags = {
        "min_gpu_budget": "4",
        "prefill_engine_num_gpu": 2,
        "decode_engine_num_gpu": 3,
        "profile_results_dir": profile,
    }
    found = planner_config(load(None, flags, environ={}).settings, offline=True)
    (deployment,) = found.deployments.values()
    assert {name: pool.min_replicas for name, pool in deployment.pools.items()} == {"prefill": 2, "decode": 2}


@pytest.mark.parametrize("guide", [None, *sorted(GUIDE_DEFAULTS)])
def test_the_pools_of_a_mode_are_the_only_ones(guide: str | None) -> None:
    (block,) = load(None, {"mode": "agg", "min_endpoint": 2}, environ={}, guide=guide).settings.deployments.values()
    assert {name: pool.min_replicas for name, pool in block.pools.items()} == {"aggregated": 2}


@pytest.mark.parametrize("guide", sorted(GUIDE_DEFAULTS))
def test_a_guides_defaults_are_weaker_than_all_that_is_set_and_ours_stay_without(guide: str, profile: str) -> None:
    flags = {"profile_results_dir": profile, "prometheus_endpoint": "http://prometheus:9090", "max_gpu_budget": 5}
    found = load(None, flags, environ={}, guide=guide)
    assert found.settings.prometheus.url == "http://prometheus:9090"
    (block,) = found.settings.deployments.values()
    assert block.max_gpus == 5
    assert load(None, {}, environ={}, guide=guide).settings.prometheus.url == PROMETHEUS
    (ours,) = load(None, {"ttft": 500}, environ={}).settings.deployments.values()
    assert (ours.sizing, ours.max_gpus) == ("sla", None)
    planner_config(found.settings)


def test_the_guides_own_numbers(profile: str) -> None:
    power = planner_config(load(None, {"profile_results_dir": profile}, environ={}, guide="power").settings)
    (deployment,) = power.deployments.values()
    (site,) = power.sites.values()
    assert site.budget_mw == 1_000_000
    assert {pool.curve.max_mw for pool in deployment.pools.values()} == {250_000}
    planner = planner_config(load(None, {"profile_results_dir": profile}, environ={}, guide="planner").settings)
    (deployment,) = planner.deployments.values()
    assert (planner.interval_s, deployment.max_gpus, deployment.ttft_ms, deployment.itl_ms) == (180, 8, 500, 50)
    assert (deployment.expected_isl_tokens, deployment.expected_osl_tokens) == (3000, 150)
    load_mode = planner_config(load(None, {}, environ={}, guide="load").settings)
    (deployment,) = load_mode.deployments.values()
    assert (load_mode.interval_s, deployment.sizing, deployment.max_gpus) == (30, SizingMode.LOAD, 8)
