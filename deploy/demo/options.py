"""The options of `wattscale up`, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.cli.errors import UsageError
from deploy.cli.numbers import MOST_GPUS

MOST_WORKERS = 64
"""Processes on one machine."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """Options of one run. Times that belong to the load are in load seconds, all others in real seconds."""

    trace: Path | None = None
    profile: Path | None = None
    nodes: int = 4
    gpus_per_node: int = 8
    gpu: str = "h200"
    budget_watts: float | None = None
    covers: Literal["all_gpus", "workers"] = "all_gpus"
    prefill_cap_watts: float | None = None
    decode_cap_watts: float | None = None
    caps: Literal["joint", "fixed"] = "joint"
    shortage: Literal["joint", "proportional"] = "joint"
    ttft_ms: float = 1000.0
    itl_ms: float = 40.0
    speed: float = 1.0
    duration_s: float | None = None
    nats_url: str | None = None
    nats_port: int = 0
    data_dir: Path | None = None
    seed: int = 0
    startup_s: float = 30.0
    planners: int = 1
    real_workers: bool = False
    json: bool = False
    site: str = "local"
    deployment: str = "default-demo"

    def check(self) -> None:
        """Raises UsageError, in one line, for options that do not fit together; each alone is checked as it is read."""
        if self.nats_url and self.data_dir:
            raise UsageError("--data-dir belongs to the embedded server; omit it with --nats-url")
        if self.real_workers:
            self._check_real_workers()
            return
        if self.caps == "fixed" and None in (self.prefill_cap_watts, self.decode_cap_watts):
            raise UsageError("--caps fixed needs --prefill-cap-watts and --decode-cap-watts")
        gpus = self.nodes * self.gpus_per_node
        if gpus < 2:
            raise UsageError("the cluster needs at least two GPUs: one prefill and one decode worker")
        if gpus > MOST_GPUS:
            raise UsageError(f"--nodes times --gpus-per-node are {gpus} GPUs: at most {MOST_GPUS} are simulated")

    def _check_real_workers(self) -> None:
        """Raises UsageError for what belongs to the simulated cluster."""
        if self.speed != 1.0:
            raise UsageError("--speed: real workers take real time; omit it with --real-workers")
        for phase, watts in (("prefill", self.prefill_cap_watts), ("decode", self.decode_cap_watts)):
            if watts is not None:
                raise UsageError(
                    f"--{phase}-cap-watts: --real-workers has one pool for both phases; omit one of the two"
                )
        if self.caps == "fixed":
            raise UsageError("--caps fixed: its caps are of one phase; --real-workers has one pool for both; omit it")
        gpus = self.nodes * self.gpus_per_node
        if gpus > MOST_WORKERS:
            raise UsageError(
                f"--nodes times --gpus-per-node are {gpus} GPUs, each with a process of its own with --real-workers:"
                f" at most {MOST_WORKERS}"
            )
