"""The load-based planner starts from flags alone: no profile, no site, and the guide's own names for everything."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.compose.core_config import planner_config
from deploy.compose.metric_sources import pull_s
from deploy.compose.planner_settings import load
from deploy.compose.settings_layers import SettingsError
from planner.core.intake import initial_state
from planner.core.step import step
from planner.domain.config import PlannerConfig, ScalingRules, SizingMode
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.observation import DeploymentObservation, Observation, PoolObservation
from planner.domain.pool import Replicas
from planner.domain.reading import Sample
from planner.domain.reasons import ReasonCode

PREFILL, DECODE, DYNAMO = PoolId("prefill"), PoolId("decode"), DeploymentId("dynamo")
FLAGS = {
    "namespace": "dynamo",
    "served_model_name": "vllm",
    "load_only": "true",
    "adjustment_interval": "30",
    "metric_pulling_interval": "2",
    "prefill_queue_scale_up_threshold": "0.5",
    "decode_kv_scale_down_threshold": "0.4",
    "prometheus_endpoint": "http://127.0.0.1:9090",
}


def from_flags(**more: str) -> PlannerConfig:
    return planner_config(load(None, {**FLAGS, **more}, environ={}).settings)


def seen(queued: float, kv: float) -> DeploymentObservation:
    """Two and three workers; nothing is known of requests, lengths or latencies."""
    prefill = PoolObservation(Replicas(2), queued_requests=Sample(0.0), mean_queued_requests=Sample(queued))
    decode = PoolObservation(Replicas(3), kv_usage=Sample(0.5), mean_kv_usage=Sample(kv))
    return DeploymentObservation(30.0, pools={PREFILL: prefill, DECODE: decode})


def test_flags_alone_start_it() -> None:
    config = from_flags()
    block = config.deployments[DYNAMO]
    assert block.sizing is SizingMode.LOAD
    assert (block.profile.prefill, block.profile.decode) == (None, None)
    assert config.sites == {}
    assert (block.load.prefill_queue_up, block.load.decode_kv_down) == (0.5, 0.4)


@pytest.mark.parametrize("sizing", ["sla", "classic", "sla+load"])
def test_every_other_mode_needs_a_profile(sizing: str) -> None:
    with pytest.raises(SettingsError, match="profile: none; name a folder"):
        planner_config(load(None, FLAGS, [f"deployments.*.sizing={sizing}"], environ={}).settings)


def test_the_pull_interval_is_that_of_the_flag_where_thresholds_decide() -> None:
    settings = load(None, FLAGS, environ={}).settings
    block = settings.deployments["dynamo"]
    assert pull_s(block) == 2.0
    assert pull_s(block.model_copy(update={"sizing": "sla"})) is None


@pytest.mark.parametrize(
    ("queued", "kv", "counts"),
    [(1.5, 0.95, (3, 4)), (0.1, 0.2, (1, 2)), (0.8, 0.7, (2, 3))],
)
def test_one_step_by_the_means_without_any_other_reading(queued: float, kv: float, counts: tuple[int, int]) -> None:
    config = from_flags()
    at_once = ScalingRules(stabilization_window_s=0.0)
    block = config.deployments[DYNAMO]
    pools = {name: replace(pool, scale_down=at_once) for name, pool in block.pools.items()}
    config = replace(config, deployments={DYNAMO: replace(block, pools=pools)})
    state = initial_state(config, 1, 0.0, (), ())
    _, plan = step(state, Observation({DYNAMO: seen(queued, kv)}), config, config.clock(0.0))
    found = plan.deployments[DYNAMO].pools
    assert (found[PREFILL].granted, found[DECODE].granted) == counts
    assert found[PREFILL].chain[0].reason is ReasonCode.LOAD
