"""``sizing: classic`` decides as ai-dynamo 0.9.1's own core does: both on the same random intervals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from planner.adapters.profiles import load_profile
from tests.contract.dynamo.environment import dynamo_python
from tests.shared_data import ROOT, shared

GATE, NIGHT = 200, 2000
FIRST_SEED = 20261126
"""The gate's; a night starts at the seed that WATTSCALE_SEED names, else where the gate ends."""
LEAST_EQUAL = 0.995
PROFILES = (
    "profiles/dynamo_h200_8b_fp8_tp1p_tp1d",
    "profiles/llama3.1-70b_h100_trtllm_tp4p_tp8d",
    "profiles/qwen3-32b_h200_vllm_tp1p_tp1d",
)
RECORDED_BUDGET = 64
"""Of the recordings that name none."""
FAILED, FOLLOWS = "0.9.1 failed in this interval", "follows an earlier difference"
CAUSES = (FAILED, FOLLOWS)
"""Why a decision may differ. Anything else is a fault of ours."""


def compared(report: Path, first: int, count: int) -> list[dict[str, Any]]:
    """Both planners' counts on ``count`` sequences."""
    python = dynamo_python()
    profiles = [str(shared(name)) for name in PROFILES]
    one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    ran = subprocess.run(
        [python, "-W", "ignore", "-m", "tests.contract.dynamo.compare", report, str(first), str(count), *profiles],
        cwd=ROOT,
        env={**os.environ, **one_thread, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(report.read_text())
    return found


def differences(found: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """(seed, interval, cause) of every decision that differs; the cause is empty where it is none of the list."""
    known = []
    for each in found:
        before = ""
        for index, (theirs, ours) in enumerate(zip(each["theirs"], each["ours"], strict=True)):
            if theirs != ours:
                cause = FAILED if theirs is None else FOLLOWS if before else ""
                before = cause or before
                known.append((each["seed"], index, cause))
    return known


def judge(found: list[dict[str, Any]], first: int) -> None:
    total = sum(len(each["theirs"]) for each in found)
    different = differences(found)
    share = 1.0 - len(different) / total
    causes = dict(Counter(cause for _, _, cause in different))
    print(f"seeds {first} to {first + len(found) - 1}: {share:.2%} of {total} decisions equal; {causes}")
    unexplained = [(seed, index) for seed, index, cause in different if cause not in CAUSES]
    assert not unexplained, f"(seed, interval): {unexplained[:20]}"
    assert share >= LEAST_EQUAL
    moved = sum(a != b for each in found for a, b in zip(each["theirs"], each["theirs"][1:], strict=False))
    assert moved > total / 6, "the sequences ask for too little"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_random_intervals_are_decided_as_0_9_1_decides_them(tmp_path: Path) -> None:
    judge(compared(tmp_path / "report.json", FIRST_SEED, GATE), FIRST_SEED)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_many_random_intervals_are_decided_as_0_9_1_decides_them(tmp_path: Path) -> None:
    first = int(os.environ.get("WATTSCALE_SEED", FIRST_SEED + GATE))
    judge(compared(tmp_path / "report.json", first, NIGHT), first)


def test_a_difference_without_a_cause_is_found() -> None:
    report = [{"seed": 7, "theirs": [[1, 1], [2, 2], None], "ours": [[1, 1], [2, 3], [2, 3]]}]
    assert differences(report) == [(7, 1, ""), (7, 2, FAILED)]
    with pytest.raises(AssertionError, match=r"\[\(7, 1\)\]"):
        judge(report, 7)


def test_the_profiles_hold_points_that_contradict_themselves() -> None:
    """0.9.1 interpolates them too: without them the comparison would not show whether we do."""
    profile = load_profile(shared(PROFILES[0]))
    assert profile.dropped
    whole = profile.as_measured[1]
    assert whole is not None
    assert profile.decode is not None
    assert len(whole.itl_ms) == len(profile.decode.itl_ms) + len(profile.dropped)


@pytest.mark.parametrize("name", ["h200_8b_ramp", "h200_8b_burst_budget16", "h200_8b_walk_kalman"])
def test_decide_makes_the_recorded_decisions_again_by_the_flags_alone(name: str) -> None:
    record = json.loads(shared(f"dynamo_decisions/{name}.json").read_text())
    given = {"max_gpu_budget": RECORDED_BUDGET, **{key.removesuffix("_ms"): v for key, v in record["config"].items()}}
    flags = [f"--{key.replace('_', '-')}={value}" for key, value in given.items()]
    command = [sys.executable, "-m", "deploy.cli.main", "planner", "decide", "--set", "deployments.*.sizing=classic"]
    ran = subprocess.run(
        [*command, "--profile", shared(PROFILES[0]), f"--interval={record['interval_s']}", *flags],
        input="\n".join(map(json.dumps, record["intervals"])),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    decided = [json.loads(line) for line in ran.stdout.splitlines()]
    wanted = [(each["num_prefill"], each["num_decode"]) for each in record["decisions"]["0.9.1"]]
    assert [(each["num_prefill"], each["num_decode"]) for each in decided] == wanted
