"""The planner takes the settings that are generated for a request."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cli.main import main
from deploy.compose.planner_settings import load
from deploy.profiling.engine_config import EngineConfig
from deploy.requests.local_outputs import LocalPlace, write_outputs
from deploy.requests.request_folder import RequestFolder
from planner.profiler.requests.generated.config_maps import RESULT_FILES
from planner.profiler.requests.generated.deployment_sizing import size_deployment
from planner.profiler.requests.generated.planner_configuration import PlannerPlace, planner_configuration
from planner.profiler.requests.request_manifest import parse_request
from planner.profiler.results.profile_files import decode_columns, prefill_columns, write_json
from tests.unit.planner.profiler.requests.request_examples import ALPHA, BETA, OWN, with_value
from tests.unit.planner.profiler.requests.test_generated_deployments import profile


def profile_folder(folder: Path) -> str:
    known = profile()
    assert known.prefill is not None
    assert known.decode is not None
    prefill = {key: value.tolist() for key, value in prefill_columns(known.prefill).items()}
    decode = {key: value.tolist() for key, value in decode_columns(known.decode).items()}
    write_json(folder / "prefill_raw_data.json", prefill)
    write_json(folder / "decode_raw_data.json", {**decode, "max_kv_tokens": known.decode.max_kv_tokens})
    write_json(folder / "meta.json", {"prefill_tp": 2, "decode_tp": 4})
    return str(folder)


def test_the_variables_of_workers_are_in_a_file_for_this_user_only(tmp_path: Path) -> None:
    folder = RequestFolder(tmp_path)
    folder.profile.mkdir()
    profile_folder(folder.profile)
    for name in RESULT_FILES:
        (folder.profile / name).touch()
    engine = EngineConfig(model="m", command=("serve", "{port}"), env={"HF_TOKEN": "hunter2"})
    place = LocalPlace("nats://127.0.0.1:4222", 8000, (), engine)
    # As the remains of a run that was killed would leave it, for everybody.
    folder.workers.mkdir()
    draft = folder.connector_file.with_name(f".{folder.connector_file.name}.new")
    draft.write_text("")
    draft.chmod(0o644)
    write_outputs(folder, parse_request(ALPHA), profile(), place)
    holding = [file for file in tmp_path.rglob("*") if file.is_file() and "hunter2" in file.read_text()]
    assert holding == [folder.connector_file]
    assert folder.connector_file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("pools", ["disaggregated", "aggregated"])
@pytest.mark.parametrize("manifest", [ALPHA, BETA, OWN, with_value(OWN, "spec.features.planner", {"minEndpoint": 3})])
def test_planner_check_accepts_them(manifest: dict[str, Any], pools: Any, tmp_path: Path, capsys):
    request = parse_request(manifest)
    place = PlannerPlace(profile_folder(tmp_path), "nats://nats:4222", "disaggregated", {}, "http://prometheus:9090")
    place = dataclasses.replace(place, pools=pools)
    file = tmp_path / "planner.yaml"
    file.write_text(yaml.safe_dump(planner_configuration(request, size_deployment(profile(), request), place)))
    assert main(["planner", "check", "-c", str(file)]) == 0, capsys.readouterr().err
    settings = load(file, environ={}).settings
    deployment = settings.deployments[f"{request.namespace}-{request.name}"]
    assert (deployment.ttft_ms, deployment.itl_ms) == (request.targets.ttft_ms, request.targets.itl_ms)
    least = {ALPHA["metadata"]["name"]: 2, "qwen": 2}.get(request.name, 3 if "minEndpoint" in str(manifest) else 2)
    assert {pool.min_replicas for pool in deployment.pools.values()} == {least}
    if request.power is not None and request.power.budget_watts:
        assert settings.sites["qwen-watts"].budget_watts == 4000
        assert settings.power_aware
