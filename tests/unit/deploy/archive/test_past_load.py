"""The load of past days from an archive: what is read, what is left out, and what a folder that cannot be read says."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bus_schemas import codec, v1
from bus_schemas.subjects import encode_name
from deploy.archive.day_files import ArchiveError, DayFiles
from deploy.archive.past_load import DAYS, past_load
from deploy.compose.core_config import planner_config
from deploy.compose.planner_settings import load
from deploy.report.journal import Entry
from planner.domain.request import ObservedLoad
from tests.unit.deploy.compose.test_planner_settings import CHAT, changed, good, problems, save
from tests.unit.planner.adapters.test_profiles import write as write_profile

NOON = datetime(2026, 3, 9, 12, tzinfo=UTC)
SEEN = {"interval_s": 30.0, "requests": 60.0, "isl_tokens": 500.0, "osl_tokens": 100.0}


def record(
    seconds: float, deployment: str = "prod.chat", *, scale: float | None = None, **seen: float | None
) -> v1.PlanRecord:
    observed = {name: value for name, value in {**SEEN, **seen}.items() if value is not None}
    at = NOON + timedelta(seconds=seconds)
    return v1.PlanRecord(time=at, deployment=deployment, decision_id=0, observed=observed, load_time_scale=scale)


def entry(number: int, message: v1.PlanRecord) -> Entry:
    subject = f"wattscale.v1.telemetry.plan.{encode_name(message.deployment)}"
    return Entry("PLANS", number, subject, message.time, codec.encode(message), "one")


def kept(folder: Path, *records: v1.PlanRecord) -> DayFiles:
    files = DayFiles(folder)
    files.append([entry(number, each) for number, each in enumerate(records, 1)])
    return files


def at(
    seconds: float,
    interval_s: float = 30.0,
    requests: float = 60.0,
    isl: float | None = 500.0,
    osl: float | None = 100.0,
) -> ObservedLoad:
    return ObservedLoad(NOON.timestamp() + seconds, interval_s, requests, isl, osl)


def test_the_newest_hour_is_read_tick_by_tick_in_the_order_of_time(tmp_path: Path) -> None:
    kept(tmp_path, record(60), record(30, isl_tokens=None), record(0, requests=None), record(60, "other"))
    assert past_load(tmp_path, "prod.chat", 1.0) == (at(30, 30.0, 60.0, None, 100.0), at(60))


def test_older_load_is_read_by_quarters_of_an_hour_with_lengths_by_request(tmp_path: Path) -> None:
    kept(
        tmp_path,
        record(30, requests=30.0, isl_tokens=200.0),
        record(60, requests=90.0, isl_tokens=400.0),
        record(90, requests=0.0, isl_tokens=None, osl_tokens=None),
        record(930),
        record(7200),
    )
    assert past_load(tmp_path, "prod.chat", 1.0) == (at(90, 90.0, 120.0, 350.0, 100.0), at(930), at(7200))


def test_a_packed_day_and_lines_beside_it_are_read_and_old_days_are_not(tmp_path: Path) -> None:
    pytest.importorskip("duckdb")
    day = 86_400.0
    files = kept(tmp_path, record(-(DAYS + 1) * day), record(-DAYS * day), record(0), record(0, "prod.chat2"))
    files.pack(NOON.date())
    files.append([entry(9, record(30))])
    assert past_load(tmp_path, "prod.chat", 1.0) == (at(-DAYS * day), at(0), at(30))


def test_load_that_was_replayed_faster_belongs_to_another_day(tmp_path: Path) -> None:
    kept(tmp_path, record(0), record(30, scale=10.0))
    assert past_load(tmp_path, "prod.chat", 1.0) == (at(0),)
    assert past_load(tmp_path, "prod.chat", 10.0) == (at(30),)


def test_packed_days_without_the_extra_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{NOON.date()}.parquet").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ArchiveError, match=r"pip install 'wattscale\[archive\]'"):
        past_load(tmp_path, "prod.chat", 1.0)


def test_an_empty_folder_has_no_past(tmp_path: Path) -> None:
    assert past_load(tmp_path, "prod.chat", 1.0) == ()


def test_an_archive_is_learned_from_and_what_cannot_be_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    profile, folder = tmp_path / "profile", tmp_path / "kept"
    profile.mkdir()
    folder.mkdir()
    write_profile(profile)
    used = changed(save(tmp_path, good(profile)), history=str(folder))
    assert planner_config(load(used, {}, environ={}).settings).deployments[CHAT].past_load == ()
    assert f"no record of prod-chat in {folder} yet" in caplog.text
    kept(folder, record(0, "prod-chat"))
    config = planner_config(load(used, {}, environ={}).settings).deployments[CHAT]
    assert config.past_load == (at(0),)
    assert config.history == ()
    (folder / f"{NOON.date()}.jsonl").write_text("nothing\n")
    [line] = problems(used)
    assert line.startswith("deployments.prod-chat.history: ")
    assert "line 1 is not a message of an archive" in line
    lines = problems(changed(used, sizing="classic"))
    assert f"deployments.prod-chat.history: {folder} is a folder, and sizing classic" in "\n".join(lines)
