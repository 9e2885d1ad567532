"""The options of `wattscale up`, checked before anything starts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from deploy.cli.errors import UsageError
from deploy.cli.numbers import MOST_GPUS


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
    json: bool = False
    site: str = "local"
    deployment: str = "default-demo"

    def check(self) -> None:
        """Raises UsageError, in one line, for options that do not fit together; each alone is checked as it is read."""
        if self.caps == "fixed" and None in (self.prefill_cap_watts, self.decode_cap_watts):
            raise UsageError("--caps fixed needs --prefill-cap-watts and --decode-cap-watts")
        if self.nats_url and self.data_dir:
            raise UsageError("--data-dir belongs to the embedded server; omit it with --nats-url")
        gpus = self.nodes * self.gpus_per_node
        if gpus < 2:
            raise UsageError("the cluster needs at least two GPUs: one prefill and one decode worker")
        if gpus > MOST_GPUS:
            raise UsageError(f"--nodes times --gpus-per-node are {gpus} GPUs: at most {MOST_GPUS} are simulated")
