"""One folder with a file for each day (UTC): JSON lines while the day is open, Parquet once it is packed.

A line is one stored message. It is on the disk before the archive counts it as kept; a line that a crash tore is cut
off at the next start and read from the bus again.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from itertools import chain
from pathlib import Path
from typing import Any

from deploy.report.journal import Entry

LINES, PARQUET = ".jsonl", ".parquet"
SHORT = 4096
MEMORY = "512MB"
"""What packing a day may use: a day of a large site is larger than the memory."""
COLUMNS = ", ".join(
    f"{name}: '{'BIGINT' if name == 'sequence' else 'VARCHAR'}'"
    for name in ("stream", "made", "sequence", "subject", "stored_at", "body", "body_base64")
)
BODY = "coalesce(encode(body), from_base64(body_base64)) AS body"
READ_LINES = (
    f"SELECT stream, made, sequence, subject, stored_at, {BODY} FROM "  # noqa: S608 - all of it is our own
    f"read_json('{{}}', format='newline_delimited', columns={{{{{COLUMNS}}}}})"
)
PACKED = "SELECT stream, made, sequence, subject, stored_at, body FROM read_parquet($1)"
OF_SUBJECTS = "WHERE regexp_matches(subject, $2)"
NEWEST = (
    "SEMI JOIN (SELECT stream, made, max(sequence) AS sequence FROM read_parquet($1) WHERE regexp_matches(subject, $2)"
    " GROUP BY stream, made, subject) USING (stream, made, sequence)"
)
ALSO_PACKED = (
    "SELECT * FROM read_parquet('{0}') UNION ALL {1} ANTI JOIN read_parquet('{0}') USING (stream, made, sequence)"
)
"""Packed messages, and the lines that are not among them. Nothing is sorted: only keys are held in memory."""
FORM = "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 4096"
EXTRA = "packed days need the package duckdb: pip install 'wattscale[archive]'"


class ArchiveError(Exception):
    """The folder cannot be used; the message is one line: what, where, what to do."""


class DayFiles:
    """The files of one archive. Raises ArchiveError where one cannot be read, OSError where one cannot be written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def days(self) -> list[date]:
        """The days of which anything is kept, oldest first."""
        return sorted({day for path in self._paths() if (day := _day(path)) is not None})

    def entries(self, first: date, last: date) -> Iterator[Entry]:
        """Everything kept of these days, day by day."""
        for day in self.days():
            if first <= day <= last:
                yield from self.of_day(day)

    def of_day(self, day: date, subjects: str = "") -> Iterator[Entry]:
        """What is kept of one day, in the order of writing: all, or where a subject matches ``subjects``."""
        packed, lines = self._path(day, PARQUET), self._path(day, LINES)
        if packed.exists():
            yield from _packed(packed, OF_SUBJECTS, subjects) if subjects else _packed(packed)
        # Beside a packed day there are lines only where a late message came after packing, or packing was cut short.
        if lines.exists():
            yield from (entry for entry in _read_lines(lines) if re.search(subjects, entry.subject))

    def newest_before(self, day: date, subjects: str) -> list[Entry]:
        """The last message of each subject that matches the regular expression ``subjects``, of the days before this.

        What was decided long ago may still be in force.
        """
        found: dict[str, Entry] = {}
        for one in (one for one in self.days() if one < day):
            packed, lines = self._path(one, PARQUET), self._path(one, LINES)
            entries = chain(
                _packed(packed, NEWEST, subjects) if packed.exists() else (),
                _read_lines(lines) if lines.exists() else (),
            )
            for entry in entries:
                before = found.get(entry.subject)
                if re.search(subjects, entry.subject) and (before is None or before.stored_at <= entry.stored_at):
                    found[entry.subject] = entry
        return list(found.values())

    def reached(self) -> dict[tuple[str, str], int]:
        """The last sequence that is kept, by stream and when it was made."""
        found: dict[tuple[str, str], int] = {}
        for path in self._paths():
            if _day(path) is None:
                continue
            ends = _packed_ends(path) if path.suffix == PARQUET else _line_ends(path)
            for key, sequence in ends:
                found[key] = max(found.get(key, 0), sequence)
        return found

    def append(self, entries: Sequence[Entry]) -> None:
        """Keep these messages: they are on the disk when this returns. Raises OSError."""
        by_day: dict[date, list[Entry]] = {}
        for entry in entries:
            by_day.setdefault(entry.stored_at.date(), []).append(entry)
        for day, own in sorted(by_day.items()):
            self._append(self._path(day, LINES), own)

    def _append(self, path: Path, entries: Sequence[Entry]) -> None:
        text = "".join(_line(entry) for entry in entries).encode()
        new = not path.exists()
        # Without a buffer: one that could not be written would be written again when the file is closed.
        with path.open("ab", buffering=0) as file:
            before = file.tell()
            try:
                left = memoryview(text)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                # Half a batch would be read from the bus again and stand here twice.
                os.truncate(path, before)
                raise
        if new:
            self._sync_folder()

    def mend(self) -> None:
        """Cut off a line that a crash tore, and remove what it left of a packing. Called once, before any append."""
        for part in self.folder.glob("*.part"):
            if _day(part) is not None:
                part.unlink()
        for aside in self.folder.glob("*.aside"):
            if _day(aside) is not None:
                shutil.rmtree(aside, ignore_errors=True)
        for path in self.folder.glob(f"*{LINES}"):
            content = path.read_bytes()
            if not content.endswith(b"\n"):
                os.truncate(path, content.rfind(b"\n") + 1)

    def pack(self, day: date) -> None:
        """Turn a day's lines into Parquet. They go once the new file is on the disk. Raises ArchiveError, OSError."""
        lines, packed = self._path(day, LINES), self._path(day, PARQUET)
        if not lines.exists():
            return
        part = packed.with_suffix(".part")
        try:
            _write_parquet(part, lines, packed if packed.exists() else None)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(packed)
        finally:
            part.unlink(missing_ok=True)
        self._sync_folder()
        lines.unlink()

    def unpacked(self) -> list[date]:
        """The days that are still lines, oldest first."""
        return sorted(day for path in self.folder.glob(f"*{LINES}") if (day := _day(path)) is not None)

    def drop(self, before: date) -> list[date]:
        """Delete the days before this one; returns them."""
        gone = [day for day in self.days() if day < before]
        for day in gone:
            for ending in (LINES, PARQUET):
                self._path(day, ending).unlink(missing_ok=True)
        return gone

    def _paths(self) -> Iterable[Path]:
        return [*self.folder.glob(f"*{LINES}"), *self.folder.glob(f"*{PARQUET}")]

    def _path(self, day: date, ending: str) -> Path:
        return self.folder / f"{day.isoformat()}{ending}"

    def _sync_folder(self) -> None:
        number = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _day(path: Path) -> date | None:
    try:
        return date.fromisoformat(path.stem)
    except ValueError:
        return None


def _line(entry: Entry) -> str:
    value: dict[str, Any] = {
        "stream": entry.stream,
        "made": entry.made,
        "sequence": entry.sequence,
        "subject": entry.subject,
        "stored_at": entry.stored_at.isoformat(),
    }
    try:
        line = json.dumps(value | {"body": entry.body.decode("utf-8")}, ensure_ascii=False)
    except UnicodeDecodeError:
        line = ""
    if not line or len(line) > 2 * len(entry.body) + SHORT:  # Control characters have six characters each in JSON.
        line = json.dumps(value | {"body_base64": base64.b64encode(entry.body).decode()}, ensure_ascii=False)
    return line + "\n"


def _read_lines(path: Path) -> Iterator[Entry]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if raw.endswith(b"\n"):
                yield _entry(path, number, raw)


def _entry(path: Path, number: int, raw: bytes) -> Entry:
    try:
        value = json.loads(raw)
        body = base64.b64decode(value["body_base64"]) if "body_base64" in value else value["body"].encode()
        at = datetime.fromisoformat(value["stored_at"])
        return Entry(value["stream"], int(value["sequence"]), value["subject"], at, body, value["made"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArchiveError(f"{path}: line {number} is not a message of an archive; move the file away") from error


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise ArchiveError(EXTRA) from error
    return duckdb


def _packed(path: Path, which: str = "", *values: str) -> Iterator[Entry]:
    """The messages of a packed day; ``which``: conditions in SQL, with ``values`` for $2 and so on."""
    duckdb = _duckdb()
    with duckdb.connect(":memory:") as database:
        try:
            rows = database.execute(f"{PACKED} {which}", [str(path), *values])
            while found := rows.fetchmany(1024):
                for stream, made, sequence, subject, at, body in found:
                    yield Entry(stream, sequence, subject, datetime.fromisoformat(at), bytes(body), made)
        except duckdb.Error as error:
            raise _unreadable(path, error) from error


def _line_ends(path: Path) -> Iterator[tuple[tuple[str, str], int]]:
    return (((entry.stream, entry.made), entry.sequence) for entry in _read_lines(path))


def _packed_ends(path: Path) -> Iterator[tuple[tuple[str, str], int]]:
    duckdb = _duckdb()
    with duckdb.connect(":memory:") as database:
        try:
            query = "SELECT stream, made, max(sequence) FROM read_parquet(?) GROUP BY stream, made"
            rows = database.execute(query, [str(path)]).fetchall()
        except duckdb.Error as error:
            raise _unreadable(path, error) from error
    return (((stream, made), sequence) for stream, made, sequence in rows)


def _unreadable(path: Path, error: Exception) -> ArchiveError:
    return ArchiveError(f"{path}: {str(error).splitlines()[0]}; move the file away")


def _write_parquet(path: Path, lines: Path, packed: Path | None) -> None:
    """Each message of ``lines`` and ``packed`` once. DuckDB reads the lines itself, and puts aside what is too much."""
    duckdb = _duckdb()
    found = READ_LINES.format(_quoted(lines))
    if packed is not None:
        found = ALSO_PACKED.format(_quoted(packed), found)
    aside = path.with_suffix(".aside")
    try:
        with duckdb.connect(":memory:") as database:
            database.execute(f"SET memory_limit='{MEMORY}'; SET threads=1; SET preserve_insertion_order=false")
            database.execute(f"SET temp_directory='{_quoted(aside)}'")
            database.execute(f"COPY ({found}) TO '{_quoted(path)}' ({FORM})")
    except duckdb.Error as error:
        raise ArchiveError(f"{lines}: cannot be packed: {str(error).splitlines()[0]}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
