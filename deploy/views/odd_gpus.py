"""Which GPUs are odd, and why: not well, above their cap, slowed by heat, or drawing far less than their pool. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from bus_schemas import v1
from deploy.views.site_view import SiteView

ABOVE_CAP = 1.05
"""A draw above this many times the limit in force: readings are means, and follow a lowered limit late."""
SAME_WATTS = 1.0
IDLE_SHARE = 0.5
"""A GPU that draws less than this share of what its pool's GPUs draw in the middle."""
FEWEST_PEERS = 4
HEAT = ("thermal", "hw_slowdown", "power_brake")
"""Parts of the names of throttle reasons that a power cap does not explain."""


@dataclass(frozen=True, slots=True)
class OddGpu:
    """``why``: every reason, in one line."""

    node: str
    gpu: str
    index: int | None
    why: str

    def sentence(self) -> str:
        """In one line, with where the GPU is."""
        place = f"GPU {self.index}" if self.index is not None else self.gpu
        return f"{self.node} {place}: {self.why}"


def odd_gpus(picture: SiteView) -> list[OddGpu]:
    """Every odd GPU of the newest reports, by node and index. A silent node's GPUs are judged by its last report."""
    reports = [(name, node.telemetry) for name, node in sorted(picture.nodes.items()) if node.telemetry is not None]
    middles = _middles(gpu for _, report in reports for gpu in report.gpus)
    found: list[OddGpu] = []
    for name, report in reports:
        judged = ((gpu, "; ".join(_reasons(gpu, middles))) for gpu in report.gpus)
        found += [OddGpu(name, gpu.gpu, gpu.index, why) for gpu, why in judged if why]
    return found


def _key(gpu: v1.GpuTelemetry) -> tuple[str, str, float]:
    """GPUs that should draw alike: of one pool, at one limit."""
    return gpu.deployment, gpu.pool, round(gpu.enforced_watts or 0.0)


def _middles(gpus: Iterable[v1.GpuTelemetry]) -> Mapping[tuple[str, str, float], float]:
    """The middle draw of every group of GPUs that should draw alike and that is large enough to have one."""
    draws: dict[tuple[str, str, float], list[float]] = {}
    for gpu in gpus:
        if gpu.pool and gpu.draw_watts is not None and not gpu.terminating:
            draws.setdefault(_key(gpu), []).append(gpu.draw_watts)
    return {key: median(found) for key, found in draws.items() if len(found) >= FEWEST_PEERS}


def _reasons(gpu: v1.GpuTelemetry, middles: Mapping[tuple[str, str, float], float]) -> Iterator[str]:
    if gpu.health is not v1.GpuHealth.OK:
        yield f"{gpu.health}" + (f" ({gpu.error})" if gpu.error else "")
    if gpu.draw_watts is None:
        yield "its draw is not known"
    cap = gpu.enforced_watts
    if cap is not None and gpu.draw_watts is not None and gpu.draw_watts > cap * ABOVE_CAP + SAME_WATTS:
        yield f"draws {gpu.draw_watts:.0f} W, above its cap of {cap:.0f} W"
    if cap is not None and gpu.granted_watts is not None and cap > gpu.granted_watts + SAME_WATTS:
        yield f"its cap of {cap:.0f} W is above the {gpu.granted_watts:.0f} W that it was granted"
    if heat := [reason for reason in gpu.throttle_reasons if any(part in reason.lower() for part in HEAT)]:
        yield f"slowed by {', '.join(heat)}"
    if why := _idle(gpu, middles):
        yield why


def _idle(gpu: v1.GpuTelemetry, middles: Mapping[tuple[str, str, float], float]) -> str:
    """Why the GPU is odd among its peers; empty where it is not. Peers that draw next to nothing say nothing."""
    middle = middles.get(_key(gpu), 0.0)
    if gpu.draw_watts is None or gpu.terminating or middle <= gpu.min_watts or gpu.draw_watts >= middle * IDLE_SHARE:
        return ""
    return f"draws {gpu.draw_watts:.0f} W, where GPUs of {gpu.pool} at its cap draw {middle:.0f} W"
