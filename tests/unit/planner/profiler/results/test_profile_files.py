"""The written profile in both of Dynamo's forms, as our own loader reads it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from planner.adapters.profiles import load_profile
from planner.profiler.results.profile_files import write_profile
from tests.unit.planner.profiler.rows import KV_TOKENS, TARGETS, profiled

SOURCE = {"model": "demo", "backend": "vllm"}


@pytest.mark.parametrize("form", ["npz", "json"])
def test_our_loader_reads_what_was_measured(tmp_path: Path, form: str) -> None:
    run = profiled()
    files = write_profile(tmp_path, run, TARGETS, SOURCE)
    for file in files:
        if (file.suffix == ".npz") != (form == "npz") and file.name != "meta.json":
            file.unlink()
    read = load_profile(tmp_path)
    assert read.dropped == ()
    assert read.prefill == run.prefill()
    assert read.decode == run.decode()
    assert (read.prefill_gpus, read.decode_gpus) == (1, 1)


def test_names_keys_and_types_are_dynamos(tmp_path: Path) -> None:
    names = {str(file.relative_to(tmp_path)) for file in write_profile(tmp_path, profiled(), TARGETS, SOURCE)}
    assert names == {
        "selected_prefill_interpolation/raw_data.npz",
        "prefill_tp1_interpolation/raw_data.npz",
        "prefill_raw_data.json",
        "selected_decode_interpolation/raw_data.npz",
        "decode_tp1_interpolation/raw_data.npz",
        "decode_raw_data.json",
        "meta.json",
    }
    with np.load(tmp_path / "selected_prefill_interpolation/raw_data.npz") as prefill:
        assert set(prefill.files) == {"prefill_isl", "prefill_ttft", "prefill_thpt_per_gpu"}
        assert prefill["prefill_isl"].dtype == np.int64
    with np.load(tmp_path / "selected_decode_interpolation/raw_data.npz") as decode:
        keys = {"x_kv_usage", "y_context_length", "z_itl", "z_thpt_per_gpu", "max_kv_tokens"}
        assert set(decode.files) == keys
        assert decode["max_kv_tokens"].shape == (1,)
    assert json.loads((tmp_path / "decode_raw_data.json").read_text())["max_kv_tokens"] == KV_TOKENS
    assert not list(tmp_path.rglob(".*"))


def test_the_fits_and_the_targets_are_in_meta(tmp_path: Path) -> None:
    write_profile(tmp_path, profiled(), TARGETS, SOURCE)
    meta = json.loads((tmp_path / "meta.json").read_text())
    assert meta["fits"]["prefill"]["ms_per_token"] == pytest.approx(0.05)
    assert meta["fits"]["decode"]["ms_per_kv_token"] == pytest.approx(0.0001)
    assert meta["targets"] == {"isl": 1000, "osl": 200, "ttft_ms": 50.0, "itl_ms": 10.0, "objective": "throughput"}
    assert meta["model"] == "demo"
