"""The log of raw measurements: a line each, on disk before the next begins, so that a run goes on after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bus_schemas.regular_files import read_regular
from planner.profiler.analysis.profiling_phase import OF_PROFILER, ProfilingPhase
from planner.profiler.analysis.sweep import Point
from planner.profiler.analysis.tables import MeasuredRepeat

FILE = "measurements.jsonl"
FORMAT = 1
PHASE = "phase"
MOST_BYTES = 256 << 20


class LogError(Exception):
    """A log that cannot be continued. The message is one line."""


class MeasurementLog:
    """One run's log. ``run`` is what was asked for: a log of something else is refused, not mixed in."""

    def __init__(self, folder: Path, run: Mapping[str, Any]) -> None:
        self.path = folder / FILE
        self.measurements: list[MeasuredRepeat] = []
        self.engines: dict[int, dict[str, Any]] = {}
        """What engines of each TP size said of themselves."""
        self.notes: list[str] = []
        self.phase: ProfilingPhase | None = None
        head = {"format": FORMAT, "run": json.loads(json.dumps(run))}
        kept = self._read(head) if self.path.exists() else 0
        try:
            self._file = self.path.open("ab")
            self._file.truncate(kept)
            if not kept:
                self._append(head)
        except OSError as error:
            raise LogError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def measured(self, one: MeasuredRepeat) -> None:
        """Keep a measurement."""
        self._append({"measurement": asdict(one)})
        self.measurements.append(one)

    def engine(self, tp: int, facts: Mapping[str, Any]) -> None:
        """Keep what an engine of a TP size said of itself."""
        self._append({"engine": {"tp": tp, **facts}})
        self.engines[tp] = dict(facts)

    def note(self, text: str) -> None:
        """Keep a sentence about the run, once."""
        if text not in self.notes:
            self._append({"note": text})
            self.notes.append(text)

    def began(self, phase: ProfilingPhase) -> None:
        """Keep which part of profiling is under way, for whoever reads along."""
        if phase is not self.phase:
            self._append({PHASE: phase.value})
            self.phase = phase

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self, head: Mapping[str, Any]) -> int:
        """Take over an existing log. Returns the bytes that are whole: a crash may have cut the last line."""
        try:
            content = read_regular(self.path, MOST_BYTES)
        except OSError as error:
            raise LogError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        kept = content.rfind(b"\n") + 1
        for number, line in enumerate(content[:kept].splitlines(), 1):
            try:
                self._take(json.loads(line), number, head)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise LogError(f"{self.path}:{number}: not a line of a measurement log: {error}") from error
        return kept

    def _take(self, line: object, number: int, head: Mapping[str, Any]) -> None:
        if not isinstance(line, dict):
            raise TypeError(f"a {type(line).__name__}, not an object")
        if number == 1:
            if line != head:
                raise LogError(
                    f"{self.path}: holds measurements of another run ({_difference(line, head)}); "
                    "name another --output-dir, or delete the file to begin anew"
                )
        elif "measurement" in line:
            each = line["measurement"]
            self.measurements.append(MeasuredRepeat(**{**each, "point": Point(**each["point"])}))
        elif "engine" in line:
            facts = dict(line["engine"])
            self.engines[int(facts.pop("tp"))] = facts
        elif PHASE in line:
            self.phase = ProfilingPhase(line[PHASE])
        else:
            self.notes.append(str(line["note"]))


def logged_phase(folder: Path) -> ProfilingPhase:
    """The part of profiling that the log in a folder names last; Initializing where there is none."""
    try:
        content = read_regular(folder / FILE, MOST_BYTES)
    except OSError:
        return ProfilingPhase.INITIALIZING
    begin, end = content.rfind(b'\n{"%s":' % PHASE.encode()), content.rfind(b"\n")
    if not 0 <= begin < end:
        return ProfilingPhase.INITIALIZING
    try:
        found = ProfilingPhase(json.loads(content[begin + 1 :].split(b"\n", 1)[0])[PHASE])
    except (ValueError, TypeError):
        return ProfilingPhase.INITIALIZING
    return found if found in OF_PROFILER else ProfilingPhase.INITIALIZING


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    old, new = found.get("run"), wanted["run"]
    if found.get("format") != FORMAT or not isinstance(old, dict):
        return "of another format"
    keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    return ", ".join(f"{key} {old.get(key)} there, {new.get(key)} now" for key in keys)
