"""A request that sizes offline, with the real package: ready without a GPU, with a TP size of each phase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.contract.offline_profile.estimate_environment import estimate_python, run_there
from tests.unit.planner.profiler.requests.request_examples import OWN, with_value


@pytest.mark.nightly
@pytest.mark.xdist_group("estimates")
def test_a_request_is_ready_without_a_gpu(tmp_path: Path) -> None:
    manifest = with_value(with_value(OWN, "spec.searchStrategy", "rapid"), "spec.autoApply", False)
    file, folder = tmp_path / "request.yaml", tmp_path / "kept"
    file.write_text(yaml.safe_dump(manifest))
    where = ("-f", str(file), "--folder", str(folder))
    (done,) = run_there(estimate_python(), [("request", "apply", *where)])
    assert done.code == 0, done.err
    record = json.loads((folder / "request.json").read_text())
    assert record["status"]["stage"] == "Ready"
    assert [event["reason"] for event in record["events"]] == ["Initialized", "ProfilingJobCreated", "SpecGenerated"]
    assert "no draw was measured" in done.err, "the objective is goodput per watt"
    meta = json.loads((folder / "profile" / "meta.json").read_text())
    parts = {part["name"]: part for part in record["status"]["generatedDeployment"]["spec"]["components"]}
    for role in ("prefill", "decode"):
        limits = parts[role]["podTemplate"]["spec"]["containers"][0]["resources"]["limits"]
        assert limits == {"nvidia.com/gpu": str(meta[f"{role}_tp"])}
