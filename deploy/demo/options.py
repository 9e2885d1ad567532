"""The options of `wattscale up`, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.cli.errors import UsageError


@dataclass(frozen=True, slots=True)
class UpOptions:
    """Options of one run. Times that belong to the load are in load seconds, all others in real seconds."""

    trace: Path | None = None
    profile: Path | None = None
    nodes: int = 4
    gpus_per_node: int = 8
    gpu: str = "h200"
    budget_watts: float | None = None
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
    json: bool = False
    site: str = "local"
    deployment: str = "default-demo"

    def check(self) -> None:
        """Raises UsageError, in one line, for numbers that make no sense."""
        positive = {
            "--nodes": self.nodes,
            "--gpus-per-node": self.gpus_per_node,
            "--ttft-ms": self.ttft_ms,
            "--itl-ms": self.itl_ms,
            "--speed": self.speed,
            "--planners": self.planners,
        }
        for option, value in positive.items():
            if not value > 0:
                raise UsageError(f"{option} must be above zero, not {value:g}")
        if self.duration_s is not None and not self.duration_s > 0:
            raise UsageError(f"--duration must be above zero seconds, not {self.duration_s:g}")
        if self.startup_s < 0:
            raise UsageError(f"--startup-s must not be negative, not {self.startup_s:g}")
        if self.nats_url and self.data_dir:
            raise UsageError("--data-dir belongs to the embedded server; omit it with --nats-url")
        if self.nodes * self.gpus_per_node < 2:
            raise UsageError("the cluster needs at least two GPUs: one prefill and one decode worker")
