"""What the ledger costs: 10,000 GPUs on 1,250 nodes, absorbed and advanced.

Run as ``python -m tests.benchmarks.power_ledger``. A quiet tick (every node reported something new, nothing changes), a
renewal of every lease, and the worst case (every GPU wants another cap and every node answers). CPU time, so that a
busy machine does not count. Returns 1 above a target.
"""

from __future__ import annotations

import gc
import statistics
import sys
import time
from collections.abc import Iterable

from planner.core.power import site_ledger
from planner.core.power.site_state import PowerState
from planner.domain.config import SiteConfig
from planner.domain.ids import GpuId, NodeId, SiteId
from planner.domain.observation import GpuCapInForce, GpuObservation, NodeObservation, Observation, PowerAckSeen
from planner.domain.plan import PowerDecision
from planner.domain.units import GpuSetpoint, Milliwatts

NODES, PER_NODE, HIGH, LOW = 1250, 8, 700_000, 200_000
CONFIG = SiteConfig(SiteId("s"), budget_mw=Milliwatts(NODES * PER_NODE * 500_000))
TARGET_MS = {"quiet": 50.0, "renewal": 100.0, "all change": 200.0}
NAMES = [NodeId(f"node-{n:04d}") for n in range(NODES)]


def report(node: NodeId, now_s: float) -> NodeObservation:
    """One node's telemetry, all values new objects."""
    gpus = {
        (gpu := GpuId(f"{node}-{n}")): GpuObservation(gpu, 150_000, LOW, LOW, HIGH, LOW, HIGH) for n in range(PER_NODE)
    }
    return NodeObservation(node, gpus, 0.0, "1", now_s)


def answers(orders: Iterable[PowerDecision], now_s: float) -> tuple[PowerAckSeen, ...]:
    """Every order carried out."""
    return tuple(
        PowerAckSeen(
            order.node,
            1,
            order.decision_id,
            order.decision_id,
            "applied",
            tuple(GpuCapInForce(cap.gpu, cap.setpoint.cap_mw, cap.setpoint.cap_mw) for cap in order.caps),
            boot="1",
            clock_s=now_s,
        )
        for order in orders
    )


class LedgerBench:
    """One ledger under load."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.power: PowerState = site_ledger.initial(CONFIG, 1, 0.0, ())
        self.orders: tuple[PowerDecision, ...] = ()

    def tick(self, after_s: float, setpoints: dict[GpuId, GpuSetpoint]) -> float:
        """Milliseconds of one absorb, want and advance with all nodes' telemetry and the answers to the last orders."""
        self.now_s += after_s
        acks = answers(self.orders, self.now_s)
        seen = Observation(nodes={name: report(name, self.now_s) for name in NAMES}, power_acks=acks)
        gc.collect()
        began = time.process_time()
        self.power = site_ledger.absorb(self.power, seen, CONFIG, self.now_s)
        self.power = site_ledger.want(self.power, setpoints)
        self.power, self.orders = site_ledger.advance(self.power, CONFIG, self.now_s)
        return (time.process_time() - began) * 1000


def wishes(turn: int) -> dict[GpuId, GpuSetpoint]:
    """Another cap for every GPU at every turn."""
    return {
        GpuId(f"{name}-{n}"): GpuSetpoint(Milliwatts(300_000 + 100_000 * ((index + n + turn) % 4)))
        for index, name in enumerate(NAMES)
        for n in range(PER_NODE)
    }


def main() -> int:
    """Print medians; 1 where one misses its target."""
    bench, still = LedgerBench(), wishes(0)
    for _ in range(8):
        bench.tick(2.5, still)
    timings: dict[str, list[float]] = {"quiet": [], "renewal": [], "all change": []}
    for _ in range(40):
        took_ms = bench.tick(1.0, still)
        timings["renewal" if len(bench.orders) == NODES else "quiet"].append(took_ms)
    for turn in range(1, 12):
        timings["all change"].append(bench.tick(2.5, wishes(turn)))
    failed = False
    for name, values in timings.items():
        median = statistics.median(values)
        failed |= median > TARGET_MS[name]
        target = TARGET_MS[name]
        print(f"{name:11} median {median:6.1f} ms, most {max(values):6.1f} ms, of {len(values)} (target {target:.0f})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
