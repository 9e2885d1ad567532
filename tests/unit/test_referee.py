"""What the benchmark in NVIDIA's replay reads and counts: profiles of several GPUs, rejected prompts, GPU-hours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from planner.adapters.profiles import load_profile
from planner.core.performance.engine_model import engine
from tests.benchmarks.dynamo_replay_support import scores
from tests.benchmarks.dynamo_replay_support.ours import gpus_per_engine, profile
from tests.shared_data import find_shared

LIMITS = {"max_num_seqs": 512, "max_num_batched_tokens": 8192}


@pytest.fixture
def tp4() -> Path:
    folder = find_shared("profiles/llama3.1-70b_h100_vllm_tp4p_tp4d")
    if folder is None:
        pytest.skip("the shared profiles are not here")
    return folder


def test_an_engine_of_four_gpus_is_read_as_the_product_reads_it(tp4: Path) -> None:
    assert gpus_per_engine(tp4) == {"prefill": 4, "decode": 4}
    ours, products = engine(profile(tp4, LIMITS)).decode, engine(load_profile(tp4)).decode
    assert ours is not None
    assert products is not None
    for batch in (1.0, 16.0, 64.0):
        assert ours.itl_ms(batch, 4000.0) == pytest.approx(products.itl_ms(batch, 4000.0), rel=0.05)


def test_a_profile_without_a_description_has_one_gpu_an_engine(tmp_path: Path) -> None:
    assert gpus_per_engine(tmp_path) == {"prefill": 1, "decode": 1}


def test_a_rejected_prompt_is_a_miss_and_workers_count_their_gpus() -> None:
    record: dict[str, Any] = {
        "ttft_ms": 100.0,
        "itl_ms": 10.0,
        "input_length": 1000,
        "arrival_time_ms": 0.0,
        "source_held_ms": None,
        "decode_admit_ms": None,
        "requested_output_length": 30,
    }
    rejected = {**record, "ttft_ms": None, "itl_ms": None}
    slow = {**record, "itl_ms": 60.0, "requested_output_length": 540}
    summary = {"prefill_worker_seconds": 3600.0, "decode_worker_seconds": 1800.0, "duration_ms": 3_600_000.0}
    for role in ("ttft", "itl"):
        summary |= {f"{q}_{role}_ms": 1.0 for q in ("mean", "median", "p95", "p99")}
    found = scores.score(
        [record, rejected, slow], summary, 500.0, 50.0, lambda _: 50.0, (), {"prefill": 4, "decode": 8}
    )
    assert found["good_share"] == pytest.approx(1 / 3)
    assert found["reachable_share"] == 0.5
    assert found["token_share"] == 0.05
    assert found["misses"]["rejected"] == 1
    assert found["gpu_hours"] == 4 + 4
