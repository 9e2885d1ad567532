"""A frontend in the settings: its own pool beside the workers, or left to another autoscaler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from deploy.compose.core_config import planner_config
from deploy.compose.metric_sources import selector
from deploy.compose.planner_settings import load
from deploy.compose.settings_layers import SettingsError
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.pool import Role
from planner.runtime.config.guide_defaults import GUIDE_DEFAULTS
from planner.runtime.offline import OfflinePlanner
from tests.unit.deploy.compose.test_planner_settings import changed, file
from tests.unit.planner.adapters.test_profiles import write as write_profile

__all__ = ["file"]
FRONTEND = PoolId("frontend")


def composed(path: Path, **pools: Any) -> Any:
    return planner_config(load(changed(path, pools=pools), environ={}).settings).deployments[DeploymentId("prod-chat")]


def test_a_frontend_stands_beside_the_usual_pools(file: Path) -> None:
    block = composed(
        file, frontend={"requests_per_s": 20, "max_replicas": 5, "behavior": {"scaleDown": {"tolerance": 0.1}}}
    )
    assert set(block.pools) == {"prefill", "decode"}
    pool = block.other_pools[FRONTEND]
    assert (pool.role, pool.gpus_per_replica, pool.requests_per_s, pool.max_replicas) == (Role.FRONTEND, 0, 20, 5)
    assert pool.scale_down.tolerance == 0.1


def test_without_one_it_is_left_to_others(file: Path) -> None:
    assert composed(file).other_pools == {}


def test_its_workers_are_no_engines_to_read(file: Path) -> None:
    settings = load(changed(file, pools={"web": {"role": "frontend", "requests_per_s": 5}}), environ={}).settings
    assert set(selector("prod-chat", settings.deployments["prod-chat"]).pools) == {"prefill", "decode"}


@pytest.mark.parametrize(
    ("pool", "problem"),
    [
        ({"frontend": {}}, "requests_per_s is for a pool of role frontend, which needs it"),
        ({"decode": {"requests_per_s": 5}}, "requests_per_s is for a pool of role frontend, which needs it"),
        ({"frontend": {"requests_per_s": 5, "gpus_per_replica": 1}}, "gpus_per_replica: a frontend has no GPU"),
        ({"frontend": {"requests_per_s": 5, "max_cap_watts": 300}}, "max_cap_watts: a frontend has no GPU"),
    ],
)
def test_what_does_not_fit_a_frontend_is_refused(file: Path, pool: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        composed(file, **pool)


def test_decide_counts_it_too(file: Path) -> None:
    path = changed(file, pools={"frontend": {"requests_per_s": 20, "max_replicas": 50}})
    config = planner_config(load(path, environ={}).settings)
    offline = OfflinePlanner(config, DeploymentId("prod-chat"))
    line = offline.decide({"num_req": 6000, "isl": 1000, "osl": 100, "ttft_ms": 100, "itl_ms": 10})
    assert line["replicas"]["frontend"] >= 10  # type: ignore[index]
    assert "frontend" not in line["cap_watts"]  # type: ignore[operator]


@pytest.mark.parametrize("guide", sorted(GUIDE_DEFAULTS))
@pytest.mark.parametrize("by_file", [True, False])
def test_a_guides_defaults_and_flags_of_gpus_are_for_the_pools_beside_it(
    guide: str, by_file: bool, tmp_path: Path
) -> None:
    write_profile(tmp_path)
    path, overrides = None, [f"deployments.dynamo.profile={tmp_path}"]
    if by_file:
        path = tmp_path / "planner.yaml"
        path.write_text("deployments: {dynamo: {pools: {web: {role: frontend, requests_per_s: 10}}}}")
    else:
        overrides.append("deployments.dynamo.pools.web={role: frontend, requests_per_s: 10}")
    flags = {"min_gpu_budget": 4, "min_endpoint": 2, "max_decode_replicas": 7}
    found = load(path, flags, overrides, environ={}, guide=guide)
    block = planner_config(found.settings).deployments[DeploymentId("dynamo")]
    assert {name: (pool.min_replicas, pool.max_replicas) for name, pool in block.pools.items()} == {
        "prefill": (4, 64),
        "decode": (4, 7),
    }
    assert block.other_pools[PoolId("web")].min_replicas == 2
    assert not found.notes


def test_a_flag_for_a_pool_that_there_is_not_is_named_and_a_setting_for_one_is_refused(tmp_path: Path) -> None:
    found = load(None, {"mode": "agg", "max_prefill_replicas": 5}, environ={})
    assert found.notes == ("flag --max-prefill-replicas: no deployment has a pool prefill, so it changes nothing",)
    write_profile(tmp_path)
    overrides = ["deployments.dynamo.sizing=load", "deployments.dynamo.pools.decoed.max_replicas=5"]
    with pytest.raises(SettingsError, match=r"pools\.decoed: its name is not a role"):
        planner_config(load(None, {"namespace": "dynamo"}, overrides, environ={}).settings)
