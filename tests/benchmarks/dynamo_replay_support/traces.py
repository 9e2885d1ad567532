"""Traces as the referee reads them: Mooncake's JSONL, sped up and cut as asked.

Owns the conversion only. A trace without prefix hashes gets hashes of its own for every request: nothing is shared.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO

BLOCK_TOKENS = 512
_FRESH = 1_000_000_000

Row = tuple[float, int, int, list[int] | None]


def convert(
    source: Path, target: Path, rate: float, until_s: float | None, skip_s: float = 0.0, turned: bool = False
) -> int:
    """Write ``source`` sped up ``rate`` times; keep ``skip_s``..``until_s`` of its OWN time; the number of requests.

    ``turned``: what comes before ``skip_s`` follows after the end.
    """
    count, fresh = 0, _FRESH
    part = _turned(source, until_s, skip_s) if turned else _part(source, until_s, skip_s)
    with target.open("w", encoding="utf-8") as out:
        for at_ms, isl, osl, hashes in part:
            if hashes is None:
                blocks = -(-isl // BLOCK_TOKENS)
                hashes = list(range(fresh, fresh + blocks))
                fresh += blocks
            row = {"timestamp": at_ms / rate, "input_length": isl, "output_length": max(1, osl), "hash_ids": hashes}
            out.write(json.dumps(row) + "\n")
            count += 1
    return count


def _part(source: Path, until_s: float | None, skip_s: float) -> Iterator[Row]:
    """The rows of a part, their time counted from its start."""
    for at_ms, isl, osl, hashes in _rows(source):
        if until_s is not None and at_ms > until_s * 1000.0:
            break
        if at_ms >= skip_s * 1000.0:
            yield at_ms - skip_s * 1000.0, isl, osl, hashes


def _turned(source: Path, until_s: float | None, skip_s: float) -> Iterator[Row]:
    """The whole trace from ``skip_s`` on, and then its beginning."""
    end_ms = 0.0
    for row in _part(source, until_s, skip_s):
        end_ms = row[0]
        yield row
    for at_ms, isl, osl, hashes in _part(source, skip_s, 0.0):
        if at_ms < skip_s * 1000.0:
            yield end_ms + at_ms, isl, osl, hashes


def _rows(source: Path) -> Iterator[Row]:
    with _open(source) as lines:
        if ".jsonl" in source.name:
            for line in lines:
                row = json.loads(line)
                yield float(row["timestamp"]), row["input_length"], row["output_length"], row.get("hash_ids")
        else:
            for row in csv.DictReader(lines):
                yield float(row["timestamp_ms"]), int(row["input_length"]), int(row["output_length"]), None


def _open(source: Path) -> IO[str]:
    if source.suffix == ".gz":
        return gzip.open(source, "rt", encoding="utf-8")
    return source.open(encoding="utf-8")
