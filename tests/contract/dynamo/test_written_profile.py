"""Dynamo's own loaders read the profiles that we write, in both forms, and make the same of them as ours."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from planner.adapters.profiles import load_profile
from planner.core.performance.published_interpolators import classic_decode, classic_prefill
from planner.profiler.results.profile_files import write_profile
from tests.contract.dynamo.environment import dynamo_python
from tests.shared_data import ROOT
from tests.unit.planner.profiler.rows import KV_TOKENS, TARGETS, profiled

ISLS = (100, 333, 1000, 2500, 4000, 9000)
LOADS = ((1, 200), (8, 1100), (12, 2000), (16, 3100), (3, 9000))
"""Requests and context."""


def written(folder: Path, form: str) -> Path:
    """A profile with the files of one form only."""
    for file in write_profile(folder, profiled(), TARGETS, {"model": "demo"}):
        if (file.suffix == ".npz") != (form == "npz"):
            file.unlink()
    return folder


def read_by(python: Path, release: str, folder: Path) -> dict[str, Any]:
    ran = subprocess.run(
        [python, "-W", "ignore", "-m", "tests.contract.dynamo.read_profile", release, folder],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        input=json.dumps({"isl": ISLS, "decode": LOADS}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.long
@pytest.mark.parametrize("form", ["npz", "json"])
def test_0_9_1_interpolates_a_written_profile_as_we_do(tmp_path: Path, form: str) -> None:
    theirs = read_by(dynamo_python(), "0.9.1", written(tmp_path, form))
    read = load_profile(tmp_path)
    assert read.prefill is not None
    assert read.decode is not None
    prefill, decode = classic_prefill(read.prefill), classic_decode(read.decode)
    assert theirs["ttft"] == pytest.approx([prefill.ttft_ms(isl) for isl in ISLS], rel=1e-9)
    assert theirs["prefill_rate"] == pytest.approx([prefill.tokens_per_s_per_gpu(isl) for isl in ISLS], rel=1e-9)
    assert theirs["itl"] == pytest.approx([decode.itl_ms(n, context) for n, context in LOADS], rel=1e-9)
    assert theirs["ttft"][2] == pytest.approx(70.0)


@pytest.mark.nightly
@pytest.mark.parametrize("form", ["npz", "json"])
def test_1_6_1_makes_the_measured_forward_passes_of_a_written_profile(tmp_path: Path, form: str) -> None:
    from tests.benchmarks.dynamo_replay_support.environment import python

    theirs = read_by(python(), "1.6.1", written(tmp_path, form))
    run = profiled()
    prefill, decode = run.prefill(), run.decode()
    assert theirs["prefill"] == [
        [pytest.approx(ms / 1000), 1, isl] for isl, ms in zip(prefill.isl_tokens, prefill.ttft_ms, strict=True)
    ]
    points = zip(decode.kv_usage, decode.context_tokens, decode.itl_ms, strict=True)
    assert theirs["decode"] == [
        [pytest.approx(ms / 1000), round(usage * KV_TOKENS / context), round(usage * KV_TOKENS)]
        for usage, context, ms in points
    ]
