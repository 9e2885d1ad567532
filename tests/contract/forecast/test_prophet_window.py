"""``prophet-window-size`` with the Prophet library itself, in an environment that the test makes: 340 MB."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.shared_data import ROOT
from tests.unit.planner.adapters.test_profiles import write as write_profile

INSTALL_WITHIN_S = 900.0
NOT_TO_BE_HAD = ("No matching distribution", "Could not find a version", "onnection", "timed out", "Temporary failure")
"""What pip says where it reaches no registry, or one without the package. Anything else is a fault of ours."""
PINNED = (
    "aiohappyeyeballs==2.7.1",
    "aiohttp==3.14.5",
    "aiosignal==1.4.0",
    "annotated-types==0.8.0",
    "attrs==26.1.0",
    "cmdstanpy==1.3.2",
    "contourpy==1.3.3",
    "cycler==0.12.1",
    "fonttools==4.68.0",
    "frozenlist==1.8.0",
    "holidays==0.109",
    "idna==3.20",
    "kiwisolver==1.5.1",
    "matplotlib==3.11.2",
    "multidict==7.2.1",
    "nats-py==2.16.0",
    "numpy==2.4.6",
    "opentelemetry-api==1.45.2",
    "opentelemetry-exporter-prometheus==0.66b2",
    "opentelemetry-sdk==1.45.2",
    "opentelemetry-semantic-conventions==0.66b2",
    "packaging==26.4",
    "pandas==3.1.1",
    "pillow==13.0.0",
    "prometheus_client==0.26.0",
    "propcache==0.5.4",
    "prophet==1.5.0",
    "pydantic-settings==2.16.3",
    "pydantic==2.14.4",
    "pydantic_core==2.50.5",
    "pyparsing==3.3.3",
    "python-dateutil==2.9.0.post0",
    "python-dotenv==1.2.4",
    "PyYAML==6.0.4",
    "six==1.17.0",
    "stanio==0.5.1",
    "tqdm==4.70.1",
    "typing-inspection==0.4.5",
    "typing_extensions==4.16.0",
    "tzdata==2026.6",
    "uvloop==0.23.0",
    "yarl==1.25.1",
)
"""The planner's requirements and Prophet's, none newer on the day that an index has one."""
QUIET, BUSY = 60.0, 6000.0
INTERVALS = [QUIET] * 24 + [BUSY] * 8
"""Requests of each interval: a window of 8 has seen nothing but the busy ones."""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with the planner's requirements and Prophet."""
    folder = tmp_path_factory.mktemp("prophet")
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    try:
        _run(sys.executable, "-m", "venv", str(folder))
        _run(*command, "--no-deps", *PINNED)
    except (OSError, subprocess.SubprocessError) as error:
        text = str(getattr(error, "stderr", "") or error)
        reason = f"no environment with prophet: {(text.strip().splitlines() or [repr(error)])[-1]}"
        if os.environ.get("WATTSCALE_REQUIRE_PARTS") and not any(sign in text for sign in NOT_TO_BE_HAD):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder / "bin" / "python"


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=INSTALL_WITHIN_S)


def decided(python: Path, profile: Path, *flags: str) -> list[dict[str, Any]]:
    """``wattscale planner decide`` over the intervals, by Dynamo's own flags."""
    lines = [json.dumps({"num_req": n, "isl": 3000, "osl": 150, "ttft_ms": 200, "itl_ms": 20}) for n in INTERVALS]
    command = [str(python), "-W", "ignore", "-m", "deploy.cli.main", "planner", "decide", "--profile", str(profile)]
    done = subprocess.run(
        [*command, "--adjustment-interval=60", "--load-predictor=prophet", *flags],
        input="\n".join(lines),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


MODEL = """
import sys
from deploy.compose.core_config import planner_config
from deploy.compose.planner_settings import load
from planner.core.forecast import registry
profile, window, *seen = sys.argv[1:]
flags = {"load_predictor": "prophet", "prophet_window_size": window, "profile_results_dir": profile}
config = planner_config(load(None, flags, environ={}).settings, offline=True)
model = registry.model("prophet", 60.0, config.predictors)
for at, value in enumerate(seen):
    model = model.observe(60.0 * at, float(value))
print(model.mean(60.0))
"""


def forecast(python: Path, profile: Path, window: int) -> float:
    """Prophet's forecast of the next interval, through the settings that the flag becomes."""
    command = [str(python), "-W", "ignore", "-c", MODEL, str(profile), str(window), *map(str, INTERVALS)]
    ran = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return float(ran.stdout.splitlines()[-1])


@pytest.mark.nightly
@pytest.mark.timeout(2400)
def test_the_window_of_prophet_bounds_what_it_remembers(python: Path, tmp_path: Path) -> None:
    write_profile(tmp_path)
    # A fit to the busy intervals alone is flat; one to all of them still has the quiet ones in it.
    assert forecast(python, tmp_path, 8) == pytest.approx(BUSY, rel=0.01)
    assert abs(forecast(python, tmp_path, 50) - BUSY) > 0.02 * BUSY


@pytest.mark.nightly
@pytest.mark.timeout(2400)
def test_prophet_decides_by_the_window_that_the_flag_gives(python: Path, tmp_path: Path) -> None:
    write_profile(tmp_path)
    short = decided(python, tmp_path, "--prophet-window-size=8")
    usual = decided(python, tmp_path, "--prophet-window-size=50")
    assert len(short) == len(usual) == len(INTERVALS)
    assert short[:8] == usual[:8], "until then both have seen the same"
    assert short[-1]["forecast"] != usual[-1]["forecast"]
