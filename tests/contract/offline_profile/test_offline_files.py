"""`wattscale profile --offline` with the real package: its files equal estimates that were published with the same
version, and Dynamo's own loaders make of them what ours do."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner.adapters.profiles import load_profile
from planner.core.performance.published_interpolators import classic_decode, classic_prefill
from tests.command_line import Done
from tests.contract.dynamo.environment import dynamo_python
from tests.contract.dynamo.test_written_profile import ISLS, LOADS, read_by
from tests.contract.offline_profile.estimate_environment import estimate_python, run_there
from tests.shared_data import shared

PUBLISHED = (
    "qwen3-32b_h200_vllm_tp2p_tp2d",
    "llama3.1-70b_h100_trtllm_tp4p_tp8d",
    "qwen3-235b-fp8_h200_vllm_tp4p_tp4d",
)
# The package has 500 MB: at night.
pytestmark = [pytest.mark.nightly, pytest.mark.xdist_group("estimates"), pytest.mark.timeout(1200)]
MOST_IN_FLIGHT = 2000
"""Of the published sweeps."""
TARGET_CONTEXT = 3000 + 150 / 2
START = ("profile", "--offline", "--backend", "vllm", "--system", "h200_sxm")
REFUSED = (
    ((*START, "--model", "No/Such"), "--model No/Such: aiconfigurator-core does not know it; known: MiniMaxAI/"),
    (
        ("profile", "--offline", "--backend", "vllm", "--system", "h900", "--model", "Qwen/Qwen3-32B"),
        "--system h900: there are no measurements with vllm; known: a100_sxm, b200_sxm, ",
    ),
    (
        (*START, "--model", "Qwen/Qwen3-32B", "--backend-version", "0.1"),
        "--backend-version 0.1: there are no measurements of it on h200_sxm; known: 0.24.0, 0.27.0",
    ),
    (
        (*START, "--model", "meta-llama/Meta-Llama-3.1-70B", "--tp", "1"),
        "TP 1: no KV budget: non-KV memory",
    ),
    (
        (*START, "--model", "Qwen/Qwen3-32B", "--max-context-length", "1000000"),
        "--max-context-length 1000000: Qwen/Qwen3-32B takes at most 40960",
    ),
    (
        (*START, "--model", "Qwen/Qwen3-32B", "--moe-parallel", "ep"),
        "--moe-parallel ep: Qwen/Qwen3-32B has no experts",
    ),
    ((*START, "--model", "Qwen/Qwen3-32B", "--tp", "3"), "TP 3: num_heads 64 should be divisible by tp_size 3"),
)


REQUEST = {
    "apiVersion": "nvidia.com/v1alpha1",
    "kind": "DynamoGraphDeploymentRequest",
    "metadata": {"name": "sla-aic", "namespace": "dynamo"},
    "spec": {
        "model": "Qwen/Qwen3-32B",
        "backend": "vllm",
        "profilingConfig": {
            "profilerImage": "registry/vllm-runtime:1.6.1",
            "config": {
                "sla": {"isl": 3000, "osl": 150, "ttft": 200.0, "itl": 20.0},
                "sweep": {
                    "useAiConfigurator": True,
                    "aicSystem": "h200_sxm",
                    "aicHfId": "Qwen/Qwen3-32B",
                    "aicBackendVersion": "0.24.0",
                },
            },
        },
    },
}


@dataclass(frozen=True)
class Estimates:
    """Folders of estimated profiles, two each where the phases have different TP sizes, and what commands printed."""

    prefill: dict[str, Path]
    decode: dict[str, Path]
    refused: list[Done]
    request: Path


@pytest.fixture(scope="module")
def estimates(tmp_path_factory: pytest.TempPathFactory) -> Estimates:
    python, base = estimate_python(), tmp_path_factory.mktemp("estimates")
    commands: list[tuple[str, ...]] = []
    folders: dict[str, dict[str, Path]] = {"prefill": {}, "decode": {}}
    for name in PUBLISHED:
        meta = read(name, "meta.json")
        for phase in folders:
            tp = meta[f"{phase}_tp"]
            folder = folders[phase][name] = base / name / f"tp{tp}"
            words = (
                *("profile", "--offline", "--model", meta["model"], "--system", meta["system"]),
                *("--backend", meta["backend"], "--backend-version", meta["db_version"], "--tp", str(tp)),
                *("--max-in-flight", str(MOST_IN_FLIGHT), "--output-dir", str(folder)),
            )
            commands += [words] if words not in commands else []
    (base / "request.yaml").write_text(json.dumps(REQUEST))
    commands.append(("request", "apply", "-f", str(base / "request.yaml"), "--folder", str(base / "request")))
    refused = [(*words, "--output-dir", str(base / "refused")) for words, _ in REFUSED]
    done = run_there(python, [*commands, *refused])
    for each in done[: len(commands)]:
        assert each.code == 0, each
    return Estimates(folders["prefill"], folders["decode"], done[len(commands) :], base / "request")


def read(name: str, file: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shared(f"profiles/{name}/{file}").read_text())
    return found


def test_files_equal_the_published_ones(estimates: Estimates, record_property: Any) -> None:
    for name in PUBLISHED:
        prefill = by_isl(read(name, "prefill_raw_data.json"))
        found = by_isl(json.loads((estimates.prefill[name] / "prefill_raw_data.json").read_text()))
        assert found.keys() - prefill.keys() == {3000}  # the target's own
        for isl, values in prefill.items():
            assert found[isl] == pytest.approx(values, rel=1e-3), (name, isl)
        there = by_load(read(name, "decode_raw_data.json"))
        here = by_load(json.loads((estimates.decode[name] / "decode_raw_data.json").read_text()))
        assert {context for context, _ in here.keys() - there.keys()} == {TARGET_CONTEXT}
        assert there.keys() <= here.keys()
        for load, (usage, itl, rate) in there.items():
            assert here[load] == pytest.approx((usage, itl, rate), rel=5e-3, abs=1e-6), (name, load)
        kv_cache = load_profile(estimates.decode[name]).decode
        assert kv_cache is not None
        assert kv_cache.max_kv_tokens == read(name, "decode_raw_data.json")["max_kv_tokens"]
        furthest = max(abs(here[load][1] / itl - 1) for load, (_, itl, _) in there.items())
        record_property("measured", f"{name}: {len(there)} ITL, furthest {furthest:.4%}")


def by_isl(table: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """TTFT and rate by input length."""
    columns = (table[key] for key in ("prefill_isl", "prefill_ttft", "prefill_thpt_per_gpu"))
    return {isl: (ttft, rate) for isl, ttft, rate in zip(*columns, strict=True)}


def by_load(table: dict[str, Any]) -> dict[tuple[float, int], tuple[float, float, float]]:
    """KV use, ITL and rate by context and requests."""
    columns = (table[key] for key in ("x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu"))
    return {
        (context, round(usage * table["max_kv_tokens"] / context)): (usage, itl, rate)
        for usage, context, itl, rate in zip(*columns, strict=True)
    }


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_the_package_does_not_know_is_refused_in_one_line(estimates: Estimates, number: int) -> None:
    done, line = estimates.refused[number], REFUSED[number][1]
    assert done.code in (1, 2)
    assert line in done.one_line()


def test_a_request_is_sized_without_a_gpu(estimates: Estimates) -> None:
    status = json.loads((estimates.request / "request.json").read_text())["status"]
    assert status["state"] == "Ready"
    meta = json.loads((estimates.request / "profile" / "meta.json").read_text())
    assert (meta["db_version"], meta["targets"]["ttft_ms"]) == ("0.24.0", 200.0)
    assert meta["prefill_tp"] == 2  # one GPU takes 275 ms
    graph = yaml.safe_load((estimates.request / "outputs" / "config_with_planner.yaml").read_text())
    for phase in ("prefill", "decode"):
        gpus = graph["spec"]["services"][phase]["resources"]["limits"]["gpu"]
        assert gpus == str(meta[f"{phase}_tp"])


def form_of(folder: Path, place: Path, form: str) -> Path:
    """A copy of a profile with the files of one form only."""
    shutil.copytree(folder, place)
    for file in place.rglob("*raw_data.*"):
        if (file.suffix == ".npz") != (form == "npz"):
            file.unlink()
    return place


@pytest.mark.parametrize("form", ["npz", "json"])
def test_0_9_1_interpolates_an_estimate_as_we_do(estimates: Estimates, tmp_path: Path, form: str) -> None:
    folder = form_of(estimates.decode[PUBLISHED[0]], tmp_path / form, form)
    theirs, read_here = read_by(dynamo_python(), "0.9.1", folder), load_profile(folder)
    assert read_here.prefill is not None
    assert read_here.decode is not None
    assert read_here.dropped == ()
    prefill, decode = classic_prefill(read_here.prefill), classic_decode(read_here.decode)
    assert theirs["ttft"] == pytest.approx([prefill.ttft_ms(isl) for isl in ISLS], rel=1e-9)
    assert theirs["prefill_rate"] == pytest.approx([prefill.tokens_per_s_per_gpu(isl) for isl in ISLS], rel=1e-9)
    assert theirs["itl"] == pytest.approx([decode.itl_ms(n, context) for n, context in LOADS], rel=1e-9)


@pytest.mark.parametrize("form", ["npz", "json"])
def test_1_6_1_makes_the_forward_passes_of_an_estimate(estimates: Estimates, tmp_path: Path, form: str) -> None:
    from tests.benchmarks.dynamo_replay_support.environment import python

    folder = form_of(estimates.decode[PUBLISHED[0]], tmp_path / form, form)
    theirs, read_here = read_by(python(), "1.6.1", folder), load_profile(folder)
    prefill, decode = read_here.prefill, read_here.decode
    assert prefill is not None
    assert decode is not None
    assert theirs["prefill"] == [
        [pytest.approx(ms / 1000), 1, isl] for isl, ms in zip(prefill.isl_tokens, prefill.ttft_ms, strict=True)
    ]
    points = zip(decode.kv_usage, decode.context_tokens, decode.itl_ms, strict=True)
    assert theirs["decode"] == [
        [
            pytest.approx(ms / 1000),
            round(usage * decode.max_kv_tokens / context),
            pytest.approx(usage * decode.max_kv_tokens, abs=1),
        ]
        for usage, context, ms in points
    ]
