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
from planner.runtime.offline import OfflinePlanner
from tests.unit.deploy.compose.test_planner_settings import changed, file

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
