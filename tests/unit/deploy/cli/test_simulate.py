"""`wattscale simulate` and `wattscale replay` as commands: what they print, and one line for bad input."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.archive.day_files import DayFiles
from deploy.cli.main import main
from deploy.compose.core_config import planner_config
from deploy.compose.planner_settings import load
from deploy.report.journal import Entry
from planner.adapters import journal, to_wire
from planner.core.intake import initial_state
from planner.core.step import step
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.observation import DeploymentObservation, Observation, PoolObservation
from planner.domain.pool import Replicas
from planner.domain.reading import Sample

SMALL = ["simulate", "--duration", "240", "--nodes", "1", "--startup-s", "10", "--processes", "1"]


def test_a_table_a_report_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    assert main([*SMALL, "--policy", "ours,static:2p1d", "--html", str(report)]) == 0
    told = capsys.readouterr().out
    assert "static:2p1d" in told
    assert "GPU-h" in told
    assert report.read_text().count("<svg") == 4 + 12
    assert main([*SMALL, "--policy", "hpa", "--seeds", "0,1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["seed"] for row in found["results"]] == [0, 1]
    assert all(0 <= row["good_share"] <= 1 for row in found["results"])


def test_a_trace_from_an_offset_on_with_a_promised_share(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{1000 * second},{100 if second < 300 else 200},10" for second in range(600)]
    trace.write_text("\n".join(["timestamp_ms,input_length,output_length", *rows]) + "\n")
    options = ["--trace", str(trace), "--policy", "ours", "--json", "--slo-share", "0.9"]
    assert main([*SMALL, *options, "--from", "500"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert row["requests"] == 100
    assert main([*SMALL, *options, "--rate", "2", "--from", "250"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["results"]
    assert row["requests"] == 100
    assert main([*SMALL, *options, "--from", "600"]) == 2
    assert "--from 600: the trace has no request after it" in capsys.readouterr().err


def test_what_less_power_would_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--policy", "ours", "--what-if-budget", "0.95"]) == 0
    told = capsys.readouterr().out
    assert "what if 95% of the power: good requests" in told


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--policy", "nonsense"], "no policy is called 'nonsense'"),
        (["--trace", "/nowhere.csv"], "/nowhere.csv: cannot be read: No such file"),
        (["--profile", "/nowhere"], "no such folder"),
        (["--budget-watts", "100:5000"], "the first step must begin at 0"),
        (["--budget-watts", "x"], "--budget-watts 'x'"),
        (["--budget-watts", "800"], "cannot be capped below 1600 W"),
        (["--start", "5"], "write the workers as 5p2d"),
        (["--start", "9p9d"], "--start needs 18 GPUs"),
        (["--seeds", "a"], "--seeds 'a'"),
        (["--profile-error", "0"], "--profile-error: must be a number above 0"),
        (["--html", "/nowhere/report.html"], "no such folder"),
        (["--policy", "hpa", "--what-if-budget", "0.8"], "needs one of our policies"),
        (["--from", "60"], "--from leaves out the start of a trace: name one"),
        (["--slo-share", "97"], "--slo-share: must be a number"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, *options]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.count("\n") == 1


def settings_file(folder: Path, profile: Path, **deployment: Any) -> Path:
    path = folder / "planner.yaml"
    chat = {"profile": str(profile), "site": "row", "metrics": {"urls": ["http://127.0.0.1:1/metrics"]}}
    blocks = {"deployments": {"prod-chat": {**chat, **deployment}}, "sites": {"row": {"budget_watts": 9000}}}
    path.write_text(yaml.safe_dump(blocks))
    return path


def profile_folder(folder: Path) -> Path:
    path = folder / "profile"
    path.mkdir()
    isl = [100, 1000, 4000, 8000, 16000]
    prefill = {
        "prefill_isl": isl,
        "prefill_ttft": [0.1 * n for n in isl],
        "prefill_thpt_per_gpu": [10_000.0 for _ in isl],
    }
    points = [(context, batch) for context in (500, 2000, 8000) for batch in (1, 8, 32, 100)]
    itl = [8 + 0.05 * batch + 3e-5 * batch * context for context, batch in points]
    decode = {
        "x_kv_usage": [context * batch / 1_000_000 for context, batch in points],
        "y_context_length": [context for context, _ in points],
        "z_itl": itl,
        "z_thpt_per_gpu": [batch / ms * 1000 for (_, batch), ms in zip(points, itl, strict=True)],
        "max_kv_tokens": 1_000_000,
    }
    (path / "prefill_raw_data.json").write_text(json.dumps(prefill))
    (path / "decode_raw_data.json").write_text(json.dumps(decode))
    return path


def recorded(settings: Path, target: Path) -> int:
    """Ticks of a rising load, decided by today's code and kept as plan records; how many."""
    config = planner_config(load(settings, {}, []).settings, offline=True)
    name = DeploymentId("prod-chat")
    config = replace(config, sites={})
    state = initial_state(config, 1, 0.0, (), ())
    lines = []
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for tick in range(1, 13):
        now_s = 30.0 * tick
        counts = {p: count or 1 for p, count in state.deployments[name].flow.published.items()} or {
            PoolId("prefill"): 1,
            PoolId("decode"): 1,
        }
        seen = DeploymentObservation(
            interval_s=30.0,
            requests=Sample(30.0 * 2 * tick),
            isl_tokens=Sample(1500.0),
            osl_tokens=Sample(250.0),
            ttft_ms=Sample(200.0),
            itl_ms=Sample(12.0),
            pools={p: PoolObservation(Replicas(ready=n), complete=True) for p, n in counts.items()},
        )
        state, plan = step(state, Observation({name: seen}), config, config.clock(now_s))
        known = state.deployments[name]
        state = replace(
            state,
            deployments={name: replace(known, flow=replace(known.flow, scaled_decision_id=known.flow.decision_id))},
        )
        record = to_wire.plan_record(
            plan.deployments[name],
            config.deployments[name],
            None,
            decision_id=known.flow.decision_id,
            scaled_decision_id=known.flow.decision_id,
            at=at + timedelta(seconds=now_s),
            journal=journal.entry(seen, now_s, 30.0),
        )
        lines.append(record.model_dump_json())
    target.write_bytes(gzip.compress("\n".join(lines).encode()))
    return len(lines)


def test_replaying_today_s_journal_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_file(tmp_path, profile_folder(tmp_path))
    ticks = recorded(settings, tmp_path / "journal.gz")
    assert main(["replay", "--journal", str(tmp_path / "journal.gz"), "--config", str(settings)]) == 0
    assert f"{2 * ticks} decisions replayed, 0 differ" in capsys.readouterr().err


def test_an_archive_replays_as_the_journal_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = settings_file(tmp_path, profile_folder(tmp_path))
    ticks = recorded(settings, tmp_path / "journal.gz")
    lines = gzip.decompress((tmp_path / "journal.gz").read_bytes()).splitlines()
    (tmp_path / "kept").mkdir()
    at = datetime(2026, 1, 1, tzinfo=UTC)
    kept = [
        Entry("WATTSCALE_PLANS", number, "wattscale.v1.telemetry.plan.prod-chat", at, line)
        for number, line in enumerate(lines, 1)
    ]
    DayFiles(tmp_path / "kept").append(kept)
    assert main(["replay", "--archive", str(tmp_path / "kept"), "--config", str(settings)]) == 0
    assert f"{2 * ticks} decisions replayed, 0 differ" in capsys.readouterr().err
    assert main(["replay", "--archive", str(tmp_path / "none"), "--config", str(settings)]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_replaying_with_a_tighter_target_shows_what_would_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_file(tmp_path, profile_folder(tmp_path))
    recorded(settings, tmp_path / "journal.gz")
    tighter = ["--set", "deployments.prod-chat.ttft_ms=180"]
    command = ["replay", "--journal", str(tmp_path / "journal.gz"), "--config", str(settings), *tighter, "--json"]
    assert main(command) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["different"] > 0
    assert any(row["now"]["wanted"] > row["then"]["wanted"] for row in found["rows"])


@pytest.mark.parametrize(
    ("text", "words"),
    [("{broken", "line 1: not a plan record"), ("[]\n", "line 1: not a plan record")],
)
def test_a_broken_journal_is_one_line(
    tmp_path: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_file(tmp_path, profile_folder(tmp_path))
    (tmp_path / "journal").write_text(text)
    assert main(["replay", "--journal", str(tmp_path / "journal"), "--config", str(settings)]) == 2
    assert words in capsys.readouterr().err
    (tmp_path / "journal").write_text("")
    assert main(["replay", "--journal", str(tmp_path / "journal"), "--config", str(settings)]) == 1
    assert "no plan record with an observation" in capsys.readouterr().err


def test_an_engine_under_a_recorded_cap_is_not_taken_for_a_slow_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_file(tmp_path, profile_folder(tmp_path))
    recorded(settings, tmp_path / "journal.gz")
    records = [json.loads(line) for line in gzip.decompress((tmp_path / "journal.gz").read_bytes()).splitlines()]
    wanted = {}
    for cap_watts in (None, 250.0):
        for record in records:
            slow = {"ttft_ms": {"value": 400.0, "age_s": 0.0}, "itl_ms": {"value": 24.0, "age_s": 0.0}}
            record["journal"]["readings"] |= slow
            for pool in record["pools"].values():
                pool["cap_watts"] = cap_watts
        (tmp_path / "capped").write_text("\n".join(json.dumps(record) for record in records))
        main(["replay", "--journal", str(tmp_path / "capped"), "--config", str(settings), "--json"])
        rows = json.loads(capsys.readouterr().out)["rows"]
        wanted[cap_watts] = [row["now"]["wanted"] for row in rows]
    pairs = list(zip(wanted[None], wanted[250.0], strict=True))
    assert all(capped <= slow for slow, capped in pairs)
    assert any(capped < slow for slow, capped in pairs)
