"""The power guide's own configuration: 1000 W in total, 250 W for every GPU, as its flags."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.shared_data import ROOT, shared

PROFILE = "profiles/llama3.1-8b_h100_vllm_tp1p_tp1d"
FLAGS = (
    "--enable-power-awareness",
    "--total-gpu-power-limit=1000",
    "--prefill-engine-gpu-power-limit=250",
    "--decode-engine-gpu-power-limit=250",
)


def decided(*flags: str, requests: float = 400.0, intervals: int = 3) -> list[dict[str, Any]]:
    line = json.dumps({"num_req": requests, "isl": 3000, "osl": 150, "ttft_ms": 300, "itl_ms": 25})
    command = [
        sys.executable,
        "-m",
        "deploy.cli.main",
        "planner",
        "decide",
        "--site-budget",
        f"--profile={shared(PROFILE)}",
    ]
    done = subprocess.run(
        [*command, *flags],
        input=f"{line}\n" * intervals,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [json.loads(each) for each in done.stdout.splitlines()]


def test_the_guides_configuration_scales_at_its_caps_and_within_its_budget() -> None:
    last = decided(*FLAGS, "--max-gpu-budget=4")[-1]
    assert last["num_prefill"] == 3, "at 250 W a prefill GPU has half of its speed"
    assert last["num_decode"] >= 1
    assert last["cap_watts"] == {"prefill": 250.0, "decode": 250.0}
    assert 250 * (last["num_prefill"] + last["num_decode"]) <= 1000
    assert "extrapolated" in last["reason"]["decode"]
    assert "extrapolated" not in last["reason"]["prefill"], "the prefill curve was fitted down there"


def test_left_free_to_choose_a_cap_below_the_useful_one_for_lack_of_watts_is_explained() -> None:
    last = decided("--total-gpu-power-limit=1000", "--max-gpu-budget=4")[-1]
    assert sum(last["cap_watts"][pool] * last["replicas"][pool] for pool in last["replicas"]) <= 1000
    assert last["shortfall"] > 0.0
    low = {pool for pool, watts in last["cap_watts"].items() if watts < 350.0}
    assert low == {pool for pool, reasons in last["reason"].items() if "extrapolated" in reasons}


def test_with_watts_enough_no_gpu_is_sent_below_the_useful_cap() -> None:
    last = decided("--total-gpu-power-limit=2800", "--max-gpu-budget=4")[-1]
    assert all(watts >= 350.0 for watts in last["cap_watts"].values())
    assert not any("extrapolated" in each for each in last["reason"].values())
