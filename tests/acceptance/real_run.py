"""A run of `wattscale up --real-workers` as seen from outside: its folder, its workers, what it leaves behind."""

from __future__ import annotations

import json
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.demo.real_workers.worker_ending import signal_workers

RATE_PER_S, ISL, OSL = 4.0, 3000, 12


def write_trace(file: Path, *, rate_per_s: float = RATE_PER_S, isl: int = ISL, osl: int = OSL) -> None:
    """Ten minutes of requests of one length: few tokens of answers, so that this machine has little to do for them."""
    rng, t_s, lines = random.Random(3), 0.0, ["timestamp_ms,input_length,output_length"]
    while t_s < 600:
        t_s += rng.expovariate(rate_per_s)
        lines.append(f"{1000 * t_s:.0f},{isl},{osl}")
    file.write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class RealRun:
    """The files of one run, whose temporary folders are in ``scratch``."""

    scratch: Path

    @property
    def folder(self) -> Path:
        """The run's folder; it has just one."""
        [found] = self.scratch.glob("wattscale-workers-*")
        return found

    def workers(self) -> dict[str, dict[str, Any]]:
        """The connector's record, by worker; empty before it exists."""
        try:
            text = (self.folder / "connector" / "workers.json").read_text()
        except (FileNotFoundError, ValueError):
            return {}
        return {one["worker"]: one for one in json.loads(text)["workers"]}

    def ready(self) -> set[str]:
        """The workers that take requests."""
        return {name for name, one in self.workers().items() if one["stage"] == "ready"}

    def left(self, folder: Path) -> list[object]:
        """What is left of a run with this folder: processes and files."""
        return [*signal_workers(folder, signal.SIGCONT), *self.scratch.iterdir()]
