"""Which connectors a planner's process runs, and from which settings: one file may be for several deployments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose.connectors.beside_planner import side_connectors
from deploy.compose.settings_layers import SettingsError
from planner.runtime.config.settings import Settings
from tests.contract.kubernetes.test_detected_model import account_file

SHARED: dict[str, Any] = {
    "namespace": "prod",
    "deployments": {
        "prod-chat": {"graph": "chat"},
        "prod-code": {"targets": {"decode": "deployments.v1.apps/code-decode"}, "namespace": "other"},
    },
}


def planner(folder: Path, content: dict[str, Any], kind: str, *names: str) -> Settings:
    file = folder / "connector.yaml"
    file.write_text(yaml.safe_dump(content))
    deployments = {name: {"model": "M", "connector": kind, "connector_settings": str(file)} for name in names}
    return Settings.model_validate({"deployments": deployments})


def test_a_file_for_several_deployments_gives_each_its_part(tmp_path: Path) -> None:
    access = {"KUBECONFIG": str(account_file(tmp_path, "http://127.0.0.1:9"))}
    found = side_connectors(planner(tmp_path, SHARED, "kubernetes", "prod-chat", "prod-code"), access)
    assert [one.where for one in found] == [
        "graph chat in namespace prod at http://127.0.0.1:9",
        "targets of decode in namespace other at http://127.0.0.1:9",
    ]


def test_a_deployment_that_the_file_does_not_name_is_refused(tmp_path: Path) -> None:
    access = {"KUBECONFIG": str(account_file(tmp_path, "http://127.0.0.1:9"))}
    with pytest.raises(SettingsError) as refused:
        side_connectors(planner(tmp_path, SHARED, "kubernetes", "prod-image"), access)
    (problem,) = refused.value.problems
    assert problem.startswith("deployments.prod-image.connector: kubernetes: ")
    assert problem.endswith("connector.yaml is of prod-chat, prod-code")


def test_redis_takes_the_model_and_dynamos_own_variables(tmp_path: Path) -> None:
    variables = {"DYN_REDIS_URL": "redis://cache:6390/2", "ETCD_ENDPOINTS": "http://etcd:2379"}
    (found,) = side_connectors(planner(tmp_path, {"store": "redis"}, "virtual", "prod-chat"), variables)
    assert found.where == "the hash of namespace prod-chat and model M in Redis at cache:6390/2"
