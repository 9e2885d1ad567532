"""`wattscale archive` from a real bus, and reports from what it kept, when the bus has forgotten it."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from bus_schemas import codec, v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.api import ask
from deploy.archive.archiver import Archiver
from deploy.archive.day_files import DayFiles
from deploy.report.journal import Entry, merged
from tests.command_line import wattscale
from tests.contract.bus import bench, until
from tests.integration.planner.test_report_command import store


async def test_the_archive_goes_on_where_it_ended_and_a_report_reads_it(tmp_path: Path) -> None:
    folder, file = tmp_path / "kept", tmp_path / "report.json"
    async with bench() as (server, bus):
        at = ("--nats-url", server.url)
        await store(bus)
        done = await wattscale("archive", str(folder), "--once", *at)
        assert (done.code, done.out) == (0, f"{folder}: 5 messages kept\n"), done
        done = await wattscale("archive", str(folder), "--once", *at)
        assert done.out == f"{folder}: 0 messages kept\n"
        assert (await wattscale("report", *at, "--archive", str(folder), "--out", str(file))).code == 0
        before = json.loads(file.read_text())

        # Streams that are made anew number from 1 again: nothing of either is taken for the other's.
        for stream in ("WATTSCALE_ACKS", "WATTSCALE_DECISIONS"):
            await ask(bus, f"$JS.API.STREAM.DELETE.{stream}")
        await stream_admin.apply(bus)
        await store(bus)
        done = await wattscale("archive", str(folder), "--once", *at)
        assert done.out == f"{folder}: 4 messages kept\n"
    done = await wattscale("report", "--archive", str(folder), "--offline", "--json")
    after = json.loads(done.out)
    assert [before["sites"][0]["acknowledgements"], after["sites"][0]["acknowledgements"]] == [2, 4]
    done = await wattscale("report", "--archive", str(folder), "--offline", "--check", str(file))
    assert done.code == 0, done


async def test_days_that_are_over_are_packed_and_old_ones_dropped(tmp_path: Path) -> None:
    async with bench() as (_server, bus):
        await store(bus)
        files, clock = DayFiles(tmp_path), [datetime.now(UTC)]
        archiver = Archiver(bus, files, keep_days=3, now=lambda: clock[0])
        archiver.begin()
        assert await archiver.copy() == 5
        archiver.tidy()
        (day,) = files.days()
        assert files.unpacked() == [day]
        clock[0] += timedelta(days=1, minutes=10)
        archiver.tidy()
        assert files.unpacked() == []
        assert len(merged(files.of_day(day))) == 5
        for later in (1, 3, 4):
            files.append([replace(next(files.of_day(day)), stored_at=stored_on(day, later))])
        clock[0] += timedelta(days=4)
        archiver.tidy()
        assert files.days() == [day + timedelta(days=later) for later in (1, 3, 4)]


def stored_on(day: date, days_later: int) -> datetime:
    return datetime(day.year, day.month, day.day, 12, tzinfo=UTC) + timedelta(days=days_later)


async def test_a_clock_that_jumps_ahead_drops_nothing_that_is_not_old_by_the_messages(tmp_path: Path) -> None:
    async with bench() as (_server, bus):
        await store(bus)
        files = DayFiles(tmp_path)
        ahead = datetime.now(UTC) + timedelta(days=4000)
        archiver = Archiver(bus, files, keep_days=3, now=lambda: ahead)
        archiver.begin()
        await archiver.copy()
        (day,) = files.days()
        kept = [*files.of_day(day)]
        files.append([replace(kept[0], stored_at=stored_on(day, later)) for later in (-5, -3, -2)])
        archiver.tidy()
        assert files.days() == [day + timedelta(days=later) for later in (-3, -2, 0)]
        assert merged(files.of_day(day)) == merged(kept)


class SlowFiles(DayFiles):
    """Packing a day takes until it is let go."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.packing, self.go_on = threading.Event(), threading.Event()

    def pack(self, day: date) -> None:
        self.packing.set()
        assert self.go_on.wait(60)
        super().pack(day)


async def test_an_archive_that_is_stopped_ends_after_the_day_that_it_packs(tmp_path: Path) -> None:
    async with bench() as (_server, bus):
        await store(bus)
        files = SlowFiles(tmp_path)
        archiver = Archiver(bus, files, now=lambda: datetime.now(UTC) + timedelta(days=3))
        archiver.begin()
        await archiver.copy()
        (day,) = files.days()
        kept = merged(files.of_day(day))
        files.append([replace(kept[0], stored_at=stored_on(day, 1))])
        running = asyncio.create_task(archiver.run(0.1))
        await asyncio.to_thread(files.packing.wait, 60)
        for _ in range(3):  # Once is not enough for whoever wants it to end.
            running.cancel()
            await asyncio.sleep(0)
        assert not running.done()
        files.go_on.set()
        await asyncio.wait([running], timeout=60)
        assert running.cancelled()
        assert files.unpacked() == [day + timedelta(days=1)]
        assert merged(files.of_day(day)) == kept
        assert not [one for one in tmp_path.iterdir() if one.suffix not in (".jsonl", ".parquet")]


async def test_an_archive_that_gets_sigterm_while_it_packs_leaves_whole_files(tmp_path: Path) -> None:
    folder, day = tmp_path / "kept", (datetime.now(UTC) - timedelta(days=2)).date()
    async with bench() as (server, bus):
        await store(bus)
        folder.mkdir()
        files = DayFiles(folder)
        some = Entry("DECISIONS", 1, "decision.scaling.chat", stored_on(day, 0), b"x" * 400, "then")
        kept = [replace(some, sequence=number) for number in range(1, 8_001)]
        files.append(kept)
        options = (sys.executable, "-m", "deploy.cli.main", "archive", str(folder), "--nats-url", server.url)
        process = await asyncio.create_subprocess_exec(*options, stdout=-1, stderr=-1)
        try:
            began = (folder / f"{day}.part", folder / f"{day}.parquet")
            await until(lambda: any(path.exists() for path in began), "the packing", 60)
            process.terminate()
            _, err = await asyncio.wait_for(process.communicate(), 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, err.decode()
    assert merged(files.of_day(day)) == kept
    assert {one.suffix for one in folder.iterdir()} <= {"", ".jsonl", ".parquet"}


async def test_a_day_that_cannot_be_packed_stops_neither_the_copying_nor_the_days_after_it(tmp_path: Path) -> None:
    async with bench() as (_server, bus):
        await store(bus)
        files = DayFiles(tmp_path)
        clock = datetime.now(UTC) + timedelta(days=2)
        archiver = Archiver(bus, files, now=lambda: clock)
        archiver.begin()
        assert await archiver.copy() == 5
        (day,) = files.days()
        damaged = tmp_path / "2020-01-01.jsonl"
        damaged.write_text("not a message\n")
        archiver.tidy()
        assert files.unpacked() == [date(2020, 1, 1)]
        assert len(merged(files.of_day(day))) == 5


async def test_a_report_without_a_bus_knows_what_was_decided_days_before_and_any_time_zone(tmp_path: Path) -> None:
    noon = datetime(2026, 1, 9, 12, tzinfo=UTC)
    decision = v1.ScalingDecision(
        time=noon - timedelta(days=7),
        deployment="chat",
        decision_id=1,
        incarnation="one",
        epoch=1,
        pools={"decode": v1.PoolTarget(role="decode", replicas=2, gpus_per_replica=8)},
    )
    pool = v1.PoolRecord(role="decode", current=2, wanted=2, granted=2)
    record = v1.PlanRecord(
        time=noon, deployment="chat", decision_id=1, observed={"interval_s": 3600.0}, pools={"decode": pool}
    )
    DayFiles(tmp_path).append(
        [
            Entry("DECISIONS", 1, "wattscale.v1.decision.scaling.chat", decision.time, codec.encode(decision)),
            Entry("PLANS", 1, "wattscale.v1.telemetry.plan.chat", noon, codec.encode(record)),
        ]
    )
    for since, end in (
        ("2026-01-09T11:00", "2026-01-09T12:00"),
        ("2026-01-08T23:00-12:00", "2026-01-09T00:00-12:00"),
        ("2026-01-10T01:00+14:00", "2026-01-10T02:00+14:00"),
    ):
        args = ("--archive", str(tmp_path), "--offline", "--since", since, "--until", end)
        (used,) = json.loads((await wattscale("report", *args, "--json")).out)["deployments"]
        assert used["gpu_hours"] == 16.0
        done = await wattscale("report", *args)
        assert done.out.startswith("# Report 2026-01-09 11:00:00 to 2026-01-09 12:00:00 UTC\n")


async def test_one_process_for_each_folder_and_bad_folders_are_named(tmp_path: Path) -> None:
    import fcntl

    (tmp_path / "a").mkdir()
    with (tmp_path / "a" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        done = await wattscale("archive", str(tmp_path / "a"), "--once", "--nats-url", "nats://127.0.0.1:1")
    assert done.code == 2
    assert "another archive writes here" in done.one_line()
    (tmp_path / "file").write_text("")
    done = await wattscale("archive", str(tmp_path / "file"), "--once", "--nats-url", "nats://127.0.0.1:1")
    assert done.code == 1
    assert "File exists" in done.one_line()
    done = await wattscale("report", "--archive", str(tmp_path / "none"), "--offline")
    assert done.code == 2
    assert "no such folder" in done.one_line()
    done = await wattscale("report", "--offline")
    assert "--offline: only with --archive" in done.one_line()
