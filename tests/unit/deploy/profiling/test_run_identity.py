"""Which runs of `wattscale profile` go on with one another's measurements."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.profiling.engine_config import EngineConfig
from deploy.profiling.profile_run import ProfileOptions, _identity
from planner.profiler.online.measurement_log import LogError, MeasurementLog

CONFIG = EngineConfig(model="org/model", args=("--dtype", "bfloat16"), env={"HF_TOKEN": "hf-secret", "MODE": "fast"})


def options(output: Path, config: EngineConfig | None = CONFIG) -> ProfileOptions:
    return ProfileOptions(
        endpoint=None if config else "http://127.0.0.1:8000",
        key="",
        backend="vllm" if config else None,
        config=config,
        config_notes=(),
        model=None,
        tps=(1,),
        gpus=None,
        timeout_s=60,
        isl=400,
        osl=40,
        ttft_ms=500,
        itl_ms=50,
        objective="throughput",
        quick=True,
        max_context=None,
        max_kv_tokens=None,
        max_in_flight=8,
        seed=0,
        output=output,
        caps=(),
        lock_file=output / "lock",
        gpu_folder=None,
        bus=argparse.Namespace(),
    )


def opened(found: ProfileOptions) -> MeasurementLog:
    log = MeasurementLog(found.output, _identity(found, (1,), (), ()))
    log.close()
    return log


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": "org/other"}, "model org/model there, org/other now"),
        ({"args": ("--dtype", "float16")}, "args --dtype bfloat16 there, --dtype float16 now"),
        ({"command": ("serve", "{port}")}, "command None there, serve '{port}' now"),
        ({"env": {"HF_TOKEN": "hf-secret", "MODE": "slow"}}, "env HF_TOKEN, MODE ("),
        ({"env": {}}, "env HF_TOKEN, MODE ("),
    ],
)
def test_an_engine_that_is_started_otherwise_is_another_run(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    asked = options(tmp_path)
    opened(asked)
    opened(asked)
    with pytest.raises(LogError) as raised:
        opened(replace(asked, config=CONFIG.model_copy(update=change)))
    assert f"holds measurements of another run ({named}" in str(raised.value)
    assert "name another --output-dir" in str(raised.value)


def test_how_long_an_engine_may_take_to_start_is_no_other_run(tmp_path: Path) -> None:
    asked = options(tmp_path)
    opened(asked)
    opened(replace(asked, config=CONFIG.model_copy(update={"starts_within_s": 5.0})))


def test_values_of_variables_are_not_written_down(tmp_path: Path) -> None:
    text = opened(options(tmp_path)).path.read_text()
    assert "HF_TOKEN" in text
    assert "hf-secret" not in text


def test_a_run_on_an_endpoint_goes_on_with_what_was_measured_before_there_were_these_keys(tmp_path: Path) -> None:
    text = opened(options(tmp_path, None)).path.read_text()
    assert not any(f'"{key}"' in text for key in ("command", "args", "env"))
