"""What a local request keeps. Manifest, status and events are one file, replaced whole: each event is there once.

request.json     the manifest, and its status and events
profile/         what `wattscale profile` writes; profile-failed.json: why it could not
outputs/         what was generated
workers/         the workers' records and logs, and the settings of their connector
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bus_schemas.regular_files import read_regular
from deploy.cli.errors import CliError, UsageError
from deploy.profiling.durable_json import replace_json
from planner.profiler.analysis.profiling_phase import ProfilingPhase
from planner.profiler.requests.request_status import status_from_dict

RECORD, LOCK, DELETING, FAILED = "request.json", "lock", "deleting", "profile-failed.json"
MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class KeptRequest:
    """The content of ``request.json``."""

    manifest: Mapping[str, Any]
    status: Mapping[str, Any]
    events: Sequence[Mapping[str, str]]


class RequestFolder:
    """One request's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.profile = path / "profile"
        self.outputs = path / "outputs"
        self.workers = path / "workers"

    @property
    def connector_file(self) -> Path:
        """Settings for `wattscale connector local`: beside the workers, for they outlive the outputs."""
        return self.workers / "connector.yaml"

    @property
    def deleting(self) -> bool:
        """Whether `wattscale request delete` was given."""
        return (self.path / DELETING).exists()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder; the kernel releases it when the process ends. Raises UsageError where another holds it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            number = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise UsageError(f"--folder {self.path}: {error.strerror or error}") from error
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise UsageError(f"--folder {self.path}: another process carries this request out") from error
        finally:
            os.close(number)

    def read(self) -> KeptRequest | None:
        """The record; None where there is none. Raises UsageError."""
        file = self.path / RECORD
        if not file.exists():
            return None
        try:
            found = json.loads(read_regular(file, MOST_BYTES))
            kept = KeptRequest(dict(found["manifest"]), dict(found["status"]), [dict(one) for one in found["events"]])
            status_from_dict(kept.status)
            str(kept.manifest["metadata"]["name"])
        except OSError as error:
            raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{file}: not a request's record; move it away and apply the request again") from error
        return kept

    def write(self, record: KeptRequest) -> None:
        """Replace the record. Raises CliError."""
        content = {"manifest": record.manifest, "status": record.status, "events": list(record.events)}
        try:
            replace_json(self.path / RECORD, content)
        except OSError as error:
            raise CliError(f"{self.path / RECORD}: cannot be written: {error.strerror or error}") from error

    def profile_failed(self, phase: ProfilingPhase, message: str) -> None:
        """Keep why there is no profile. Raises OSError."""
        replace_json(self.path / FAILED, {"phase": phase.value, "message": message})

    def failure(self) -> tuple[ProfilingPhase, str] | None:
        """Why there is no profile; None where nothing failed. Raises UsageError."""
        file = self.path / FAILED
        try:
            found = json.loads(read_regular(file, MOST_BYTES))
            return ProfilingPhase(found["phase"]), str(found["message"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"{file}: cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(f"{file}: not the record of a failure; remove it, and profiling is tried again") from error

    def ask_to_delete(self) -> None:
        """Leave word for whoever carries the request out. Raises OSError."""
        (self.path / DELETING).touch()

    def forget_deletion(self) -> None:
        """Remove the word of `ask_to_delete`, where what it was for is gone. Raises OSError."""
        (self.path / DELETING).unlink(missing_ok=True)

    def remove_outputs(self) -> None:
        """Raises OSError."""
        shutil.rmtree(self.outputs, ignore_errors=False)

    def remove(self, *, workers: bool) -> None:
        """Everything; without ``workers`` these stay, with the profile that they read. Raises OSError."""
        for name in (RECORD, FAILED):
            (self.path / name).unlink(missing_ok=True)
        if workers:
            for folder in (self.profile, self.workers):
                shutil.rmtree(folder, ignore_errors=True)
        self.forget_deletion()
