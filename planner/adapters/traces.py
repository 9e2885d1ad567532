"""Traces of real requests from files: Mooncake JSONL and CSV, plain or gzip.

Owns reading and checking. A trace is read completely or not at all: a file that breaks off or goes back in time is
refused with its line number, because a half-read trace would be measured as a smaller load.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from planner.adapters.text_lines import TextFileError, text_lines
from planner.domain.request import Request

CSV_COLUMNS = ("timestamp_ms", "input_length", "output_length")
MOST_REQUESTS = 20_000_000
MOST_TOKENS = 100_000_000
LATEST_MS = 1e11
"""Three years."""


class TraceError(Exception):
    """A trace that cannot be used. The message is one line: file, line number, reason."""


@dataclass(frozen=True, slots=True)
class Trace(Sequence[Request]):
    """Requests by rising arrival time, in columns: seconds, input tokens, output tokens, block hashes (or none)."""

    name: str
    t_s: array[float]
    isl: array[int]
    osl: array[int]
    hash_ids: tuple[tuple[int, ...], ...] = ()

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> Trace: ...
    def __getitem__(self, index: int | slice) -> Request | Trace:
        if isinstance(index, slice):
            return Trace(self.name, self.t_s[index], self.isl[index], self.osl[index], self.hash_ids[index])
        hashes = self.hash_ids[index] if self.hash_ids else ()
        return Request(self.t_s[index], self.isl[index], self.osl[index], hashes)

    def __len__(self) -> int:
        return len(self.t_s)

    @classmethod
    def of(cls, name: str, requests: Iterable[Request]) -> Trace:
        """A trace of requests whose prompts have no blocks in common."""
        rows = list(requests)
        return cls(
            name,
            array("d", (r.t_s for r in rows)),
            array("l", (r.isl for r in rows)),
            array("l", (r.osl for r in rows)),
        )

    def __iter__(self) -> Iterator[Request]:
        if self.hash_ids:
            return map(Request, self.t_s, self.isl, self.osl, self.hash_ids)
        return map(Request, self.t_s, self.isl, self.osl)

    @property
    def duration_s(self) -> float:
        """Seconds from the start of the trace's clock to its last arrival."""
        return self.t_s[-1] if self.t_s else 0.0

    def at_rate(self, factor: float) -> Trace:
        """The same requests ``factor`` times as fast."""
        return Trace(self.name, array("d", (t / factor for t in self.t_s)), self.isl, self.osl, self.hash_ids)

    def between(self, start_s: float, end_s: float) -> Trace:
        """Requests with ``start_s <= t < end_s``, their clock set to 0 at ``start_s``."""
        kept = [i for i, t in enumerate(self.t_s) if start_s <= t < end_s]
        return Trace(
            self.name,
            array("d", (self.t_s[i] - start_s for i in kept)),
            array("l", (self.isl[i] for i in kept)),
            array("l", (self.osl[i] for i in kept)),
            tuple(self.hash_ids[i] for i in kept) if self.hash_ids else (),
        )


def read_trace(path: Path | str) -> Trace:
    """The trace in ``path``. Timestamps are milliseconds; the first line tells JSONL from CSV. Raises TraceError."""
    path = Path(path)
    try:
        return _read(path)
    except TextFileError as error:
        raise TraceError(str(error)) from error


def _read(path: Path) -> Trace:
    lines = ((number, line) for number, line in text_lines(path) if line.strip())
    first = next(lines, None)
    if first is None:
        raise TraceError(f"{path}: line 1: empty; a trace holds one request a line")
    parse = _parse_json if first[1].lstrip().startswith("{") else _csv_parser(path, first[1])
    trace = _collect(path, itertools.chain([first], lines), parse)
    if not trace:
        raise TraceError(f"{path}: line 2: no request after the header")
    return trace


_Row = tuple[float, int, int, tuple[int, ...]]


def _collect(path: Path, lines: Iterable[tuple[int, str]], parse: Callable[[str], _Row | None]) -> Trace:
    t_s, isl, osl = array("d"), array("l"), array("l")
    hashes: list[tuple[int, ...]] = []
    last_ms = 0.0
    for number, line in lines:
        try:
            row = parse(line)
            if row is None:
                continue
            _check(row, last_ms)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TraceError(f"{path}: line {number}: {_reason(error)}") from error
        last_ms = row[0]
        t_s.append(row[0] / 1000.0)
        isl.append(row[1])
        osl.append(row[2])
        hashes.append(row[3])
        if len(t_s) > MOST_REQUESTS:
            raise TraceError(f"{path}: line {number}: more than {MOST_REQUESTS} requests")
    return Trace(path.name, t_s, isl, osl, tuple(hashes) if any(hashes) else ())


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"malformed: {error.args[0]} is missing"
    return str(error)


def _check(row: _Row, last_ms: float) -> None:
    ms, isl, osl, _ = row
    if not 0 <= ms <= LATEST_MS:
        raise ValueError(f"malformed: timestamp {ms} must be a number of milliseconds from 0 to {LATEST_MS:g}")
    if ms < last_ms:
        raise ValueError(f"unsorted: timestamp {ms:g} ms comes after {last_ms:g} ms")
    if isl < 1 or osl < 1:
        raise ValueError(f"malformed: a request has at least 1 token in and out, not {isl} and {osl}")
    if isl > MOST_TOKENS or osl > MOST_TOKENS:
        raise ValueError(f"malformed: a request has at most {MOST_TOKENS} tokens in and out, not {isl} and {osl}")


def _whole(value: object, name: str) -> int:
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            pass  # Stays NaN, and is reported like every other value that is not a number.
    if not number.is_integer():
        raise ValueError(f"malformed: {name} must be a whole number, not {value!r}")
    return int(number)


def _parse_json(line: str) -> _Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"malformed: not JSON: {error}") from error
    if not isinstance(row, dict):
        raise TypeError(f"malformed: a line holds an object, not a {type(row).__name__}")
    timestamp = row["timestamp"]
    if isinstance(timestamp, bool) or not isinstance(timestamp, int | float):
        raise TypeError(f"malformed: timestamp must be a number, not {timestamp!r}")
    hashes = row.get("hash_ids") or ()
    if not isinstance(hashes, list | tuple):
        raise TypeError("malformed: hash_ids must be a list of whole numbers")
    return (
        float(timestamp),
        _whole(row["input_length"], "input_length"),
        _whole(row["output_length"], "output_length"),
        tuple(_whole(each, "hash_ids") for each in hashes),
    )


def _csv_parser(path: Path, header: str) -> Callable[[str], _Row | None]:
    names = [name.strip() for name in next(csv.reader([header]))]
    missing = [name for name in CSV_COLUMNS if name not in names]
    if missing:
        raise TraceError(
            f"{path}: line 1: malformed: neither JSON nor a CSV header with {', '.join(CSV_COLUMNS)} "
            f"(missing: {', '.join(missing)})"
        )
    places = [names.index(name) for name in CSV_COLUMNS]
    header_line: list[str] = [header]

    def parse(line: str) -> _Row | None:
        if header_line and line == header_line[0]:
            header_line.clear()
            return None
        cells = next(csv.reader([line])) if '"' in line else line.split(",")
        if len(cells) != len(names):
            raise ValueError(f"malformed: {len(cells)} columns where the header has {len(names)}")
        try:
            ms = float(cells[places[0]])
        except ValueError:
            raise ValueError(f"malformed: timestamp_ms must be a number, not {cells[places[0]]!r}") from None
        return ms, _whole(cells[places[1]], CSV_COLUMNS[1]), _whole(cells[places[2]], CSV_COLUMNS[2]), ()

    return parse
