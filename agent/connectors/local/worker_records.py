"""What a connector keeps in its state folder: the wanted counts, each worker that it started, and who can be asked.

`workers.json` is for the next connector; it is written before a process is started and before one leaves.
`endpoints.json` is for routers: the workers that take requests now. Both are replaced whole; no reader sees a half.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agent.core.scaling.worker_lifecycle import WorkerStage


class StateFolderError(Exception):
    """The state folder cannot be used: what, and what to do."""


@dataclass(slots=True)
class WorkerRecord:
    """One worker. ``pid`` 0: about to be started, or started by a connector that died before it could note the number.

    ``mark``: is in the environment of this worker's process and of no other. ``start_ticks``: with ``pid`` it names one
    process. ``since_s``: monotonic seconds of this boot.
    """

    worker: str
    pool: str
    port: int
    gpus: tuple[str, ...]
    mark: str
    since_s: float
    stage: WorkerStage = WorkerStage.STARTING
    pid: int = 0
    start_ticks: int = 0
    drain_called: bool = False
    killed: bool = False

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(slots=True)
class WorkerBook:
    """All that is kept, of one boot of the machine."""

    boot: str
    wanted: dict[str, int] = field(default_factory=dict)
    workers: list[WorkerRecord] = field(default_factory=list)


class WorkerRecords:
    """The files in one state folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._endpoints: str | None = None

    def open(self, boot: str) -> WorkerBook:
        """What the last connector left; an empty book where there is none, or the machine has started again since.

        Raises StateFolderError.
        """
        try:
            (self._folder / "logs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StateFolderError(f"state_folder: {error.filename}: {error.strerror}") from error
        return self.read(boot)

    def read(self, boot: str) -> WorkerBook:
        """As `open`, for one who only reads: the folder need not exist, and is not made. Raises StateFolderError."""
        file = self._folder / "workers.json"
        try:
            text = file.read_bytes() if file.exists() else b""
        except OSError as error:
            raise StateFolderError(f"state_folder: {error.filename}: {error.strerror}") from error
        if not text:
            return WorkerBook(boot)
        try:
            book = TypeAdapter(WorkerBook).validate_json(text)
        except ValidationError as error:
            raise StateFolderError(
                f"state_folder: {file} is not a record of workers: move it away, and end what still runs yourself"
            ) from error
        return book if book.boot == boot else WorkerBook(boot, book.wanted)

    def store(self, book: WorkerBook) -> None:
        """Keep the book. Raises OSError."""
        self._replace("workers.json", asdict(book))

    def serve(self, deployment: str, workers: Iterable[Mapping[str, str]]) -> None:
        """Name the workers that take requests. Raises OSError."""
        content = {"deployment": deployment, "workers": list(workers)}
        text = json.dumps(content)
        if text != self._endpoints:
            self._replace("endpoints.json", content)
            self._endpoints = text

    def log_file(self, worker: str) -> Path:
        """Where a worker writes."""
        return self._folder / "logs" / f"{worker}.log"

    def _replace(self, name: str, content: dict[str, Any]) -> None:
        draft = self._folder / f".{name}.{os.getpid()}"
        draft.write_text(json.dumps(content, indent=1))
        draft.replace(self._folder / name)
