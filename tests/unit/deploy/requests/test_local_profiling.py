"""How `wattscale request apply` asks for a profile."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from deploy.profiling.node_gpus import NodeGpu
from deploy.requests.local_profiling import ApplyOptions, other_model, profile_words, with_gpus_here
from deploy.requests.request_folder import RequestFolder
from planner.profiler.requests.request_manifest import parse_request
from tests.unit.planner.profiler.requests.request_examples import ALPHA, BETA, OWN, with_value

GPUS = tuple(NodeGpu(index, f"GPU-{index}", "NVIDIA H100 80GB HBM3", False, ()) for index in range(4))
HARDWARE = "spec.profilingConfig.config.hardware"
NOTHING_GIVEN = ApplyOptions(
    endpoint=None,
    config=None,
    tps=None,
    gpus=None,
    quick=False,
    max_kv_tokens=None,
    max_in_flight=None,
    bus="",
    first_port=0,
)


def test_an_offline_request_is_estimated_within_the_limits_that_are_given(tmp_path: Path) -> None:
    request = parse_request(with_value(OWN, "spec.searchStrategy", "rapid"))
    options = replace(NOTHING_GIVEN, tps="1", max_kv_tokens=4000, max_in_flight=2)
    words = profile_words(RequestFolder(tmp_path), request, options)
    assert "--offline" in words
    assert words[words.index("--max-kv-tokens") + 1] == "4000"
    assert words[words.index("--max-in-flight") + 1] == "2"


@pytest.mark.parametrize("where", ["spec", HARDWARE])
def test_gpus_are_discovered_where_the_request_asks_for_it(where: str) -> None:
    off = parse_request(ALPHA)
    assert with_gpus_here(off, GPUS) == off
    on = with_gpus_here(parse_request(with_value(ALPHA, f"{where}.enableGpuDiscovery", True)), GPUS)
    assert (on.hardware.gpu_type, on.hardware.gpus_per_node) == ("h100_sxm", 4)
    assert with_gpus_here(on, ()) == on


def test_what_a_request_leaves_out_is_found_and_bounds_offline_sizing(tmp_path: Path) -> None:
    rapid = with_value(with_value(BETA, "spec.searchStrategy", "rapid"), "spec.hardware", {})
    request = with_gpus_here(parse_request(rapid), GPUS)
    words = profile_words(RequestFolder(tmp_path), request, NOTHING_GIVEN)
    assert words[words.index("--system") + 1] == "h100_sxm"
    assert words[words.index("--tp") + 1] == "1,2,4"
    elsewhere = parse_request(with_value(rapid, "spec.hardware", {"gpuSku": "b200_sxm"}))
    assert with_gpus_here(elsewhere, GPUS) == elsewhere


@pytest.mark.parametrize("same", [True, False])
def test_an_engine_with_another_model_than_the_requests_is_named(same: bool, tmp_path: Path) -> None:
    request, file = parse_request(OWN), tmp_path / "engine.yaml"
    file.write_text(f"model: {request.model if same else '/models/other'}\n")
    note = other_model(request, replace(NOTHING_GIVEN, config=file))
    assert (note is None) is same
    assert same or f"starts /models/other, and the request is for {request.model}" in str(note)


def test_gpus_of_a_node_bound_offline_sizing(tmp_path: Path) -> None:
    hardware = {"gpuSku": "h200_sxm", "numGpusPerNode": 2}
    request = parse_request(with_value(with_value(BETA, "spec.searchStrategy", "rapid"), "spec.hardware", hardware))
    words = profile_words(RequestFolder(tmp_path), request, NOTHING_GIVEN)
    assert words[words.index("--tp") + 1] == "1,2"
