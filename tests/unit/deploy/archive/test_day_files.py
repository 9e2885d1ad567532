"""Day files: nothing is lost or doubled by a crash, packing or late messages."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from deploy.archive.day_files import ArchiveError, DayFiles
from deploy.report.journal import Entry, merged

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
TODAY = NOON.date()


def entry(sequence: int, days: int = 0, body: bytes = b'{"a": "\xc3\xa9"}', made: str = "one") -> Entry:
    return Entry("ACKS", sequence, "wattscale.v1.ack.x", NOON + timedelta(days=days, seconds=sequence), body, made)


@pytest.fixture
def files(tmp_path: Path) -> DayFiles:
    return DayFiles(tmp_path)


def kept(files: DayFiles) -> list[Entry]:
    return list(files.entries(date.min, date.max))


def test_what_is_appended_is_read_back_by_day(files: DayFiles) -> None:
    entries = [entry(1), entry(2, body=b"\xff\x00 not text"), entry(3, days=1)]
    files.append(entries)
    assert kept(files) == entries
    assert files.days() == [TODAY, TODAY + timedelta(days=1)]
    assert list(files.entries(TODAY, TODAY)) == entries[:2]
    assert files.reached() == {("ACKS", "one"): 3}


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_in_force_long_ago_is_found(files: DayFiles, *, packed: bool) -> None:
    old = [
        Entry("DECISIONS", number, f"x.decision.scaling.{who}", NOON - timedelta(days=days), b"{}", "one")
        for number, (who, days) in enumerate([("a", 9), ("a", 8), ("b", 5), ("c", 0)], 1)
    ]
    other = Entry("PLANS", 1, "x.telemetry.plan.a", NOON - timedelta(days=1), b"{}", "one")
    files.append([*old, other])
    if packed:
        for day in files.days():
            files.pack(day)
    assert files.newest_before(TODAY, r"\.decision\.scaling\.") == [old[1], old[2]]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file may be larger: a write that goes beyond stops in the middle, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [1, 100, 1000, 5000])
@pytest.mark.parametrize("count", [2, 20, 100])
def test_a_batch_for_which_there_is_no_room_leaves_nothing(files: DayFiles, room: int, count: int) -> None:
    files.append([entry(1)])
    more = [entry(sequence, body=b"x" * 4000) for sequence in range(2, 2 + count)]
    with (
        files_of_at_most((files.folder / "2026-01-02.jsonl").stat().st_size + room),
        pytest.raises(OSError, match="too large"),
    ):
        files.append(more)
    assert kept(files) == [entry(1)]
    files.append(more)
    assert kept(files) == [entry(1), *more]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_line_is_cut_off_and_the_whole_ones_stay(files: DayFiles, cut: int) -> None:
    files.append([entry(1), entry(2)])
    path = files.folder / "2026-01-02.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert kept(files) == [entry(1)]
    files.mend()
    files.append([entry(2)])
    assert kept(files) == [entry(1), entry(2)]


def test_what_a_killed_packing_left_is_removed_and_nothing_else(files: DayFiles) -> None:
    files.append([entry(1)])
    (files.folder / "2026-01-02.part").write_bytes(b"half")
    (files.folder / "2026-01-02.aside").mkdir()
    (files.folder / "2026-01-02.aside" / "x").write_bytes(b"x")
    (files.folder / "mine.part").write_bytes(b"not the archive's")
    files.mend()
    assert sorted(path.name for path in files.folder.iterdir()) == ["2026-01-02.jsonl", "mine.part"]
    assert kept(files) == [entry(1)]


def test_a_packed_day_reads_as_before_and_takes_late_messages(files: DayFiles) -> None:
    entries = [entry(1), entry(2, body=b"\xff"), entry(1, made="two")]
    files.append(entries)
    files.pack(TODAY)
    assert [path.name for path in files.folder.iterdir()] == ["2026-01-02.parquet"]
    assert kept(files) == entries
    assert files.reached() == {("ACKS", "one"): 2, ("ACKS", "two"): 1}
    files.append([entry(2, body=b"\xff"), entry(3)])
    assert files.unpacked() == [TODAY]
    files.pack(TODAY)
    assert files.unpacked() == []
    assert merged(kept(files)) == merged(entries, [entry(3)])
    assert len(kept(files)) == 4


def test_a_crash_while_packing_loses_and_doubles_nothing(files: DayFiles) -> None:
    files.append([entry(1)])
    lines = (files.folder / "2026-01-02.jsonl").read_bytes()
    files.pack(TODAY)
    (files.folder / "2026-01-02.jsonl").write_bytes(lines)
    (files.folder / "2026-01-02.part").write_bytes(b"half")
    assert merged(kept(files)) == [entry(1)]
    files.pack(TODAY)
    assert kept(files) == [entry(1)]


@pytest.mark.parametrize("body", [b"\x01" * (1 << 20), b"\xff" * (4 << 20), b"x" * (8 << 20)])
def test_the_largest_messages_are_read_back(files: DayFiles, body: bytes) -> None:
    entries = [entry(1), entry(2, body=body), entry(3)]
    files.append(entries)
    assert kept(files) == entries
    assert files.reached() == {("ACKS", "one"): 3}
    files.pack(TODAY)
    assert kept(files) == entries


def test_a_day_that_cannot_be_packed_stays_as_it_is(files: DayFiles) -> None:
    entries = [entry(sequence, body=b"x" * 4000) for sequence in range(1, 100)]
    files.append(entries)
    with files_of_at_most(100), pytest.raises(ArchiveError, match=r"2026-01-02\.jsonl: cannot be packed: "):
        files.pack(TODAY)
    assert [path.name for path in files.folder.iterdir()] == ["2026-01-02.jsonl"]
    assert kept(files) == entries


def test_old_days_are_dropped_and_foreign_files_are_not(files: DayFiles) -> None:
    files.append([entry(1, days=-9), entry(2)])
    files.pack(TODAY - timedelta(days=9))
    (files.folder / "notes.jsonl").write_text("mine\n")
    assert files.drop(TODAY - timedelta(days=8)) == [TODAY - timedelta(days=9)]
    assert files.days() == [TODAY]
    assert (files.folder / "notes.jsonl").exists()


@pytest.mark.parametrize(("name", "content"), [("2026-01-02.jsonl", "{}\n"), ("2026-01-02.parquet", "no parquet")])
def test_a_damaged_file_is_named(files: DayFiles, name: str, content: str) -> None:
    (files.folder / name).write_text(content)
    with pytest.raises(ArchiveError, match=f"{name}: .*; move the file away"):
        kept(files)
    with pytest.raises(ArchiveError, match=name):
        files.reached()
