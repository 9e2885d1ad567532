"""How long an emergency cut takes: from the operator's message to the stored decision, and to the caps in force.

A real nats-server, the planner's service, agents that answer at once; numbers are of this machine. Run:
``python -m tests.benchmarks.cut_latency [CUTS]``.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from bus_schemas import v1
from bus_schemas.jetstream.publisher import publish
from tests.contract.bus import until
from tests.integration.planner.stage import SITE, running, staged

HIGH_WATTS, LOW_WATTS = 4000.0, 1900.0
LOAD_RPS = 20.0


async def measure(cuts: int) -> tuple[list[float], list[float]]:
    """Seconds until decided and until in force, of each cut."""
    decided, in_force = [], []
    with tempfile.TemporaryDirectory() as folder:
        async with staged(Path(folder)) as stage, running(stage):
            stage.load_rps = LOAD_RPS
            await until(lambda: 0 < stage.fleet.enforced_watts <= HIGH_WATTS, "the first caps")
            for index in range(cuts):
                for watts in (HIGH_WATTS, LOW_WATTS - index):
                    seen = len(stage.fleet.power)
                    change = v1.BudgetChange(time=datetime.now(UTC), site=SITE, budget_watts=watts)
                    began = time.time()
                    await publish(stage.bus, stage.bus.subjects.control_budget(SITE), change, f"{index}-{watts}")
                    if watts == HIGH_WATTS:
                        await until(lambda: stage.fleet.enforced_watts > LOW_WATTS + 200, "a raise")
                        continue
                    # Polling would blur milliseconds: the loop turns freely here.
                    while stage.fleet.enforced_watts > watts:
                        await asyncio.sleep(0)
                    in_force.append(time.time() - began)
                    cut = next(d for d in stage.fleet.power[seen:] if d.time.timestamp() >= began)
                    decided.append(cut.time.timestamp() - began)
    return decided, in_force


def main() -> None:
    """Print medians and the worst."""
    cuts = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    decided, in_force = asyncio.run(measure(cuts))
    for what, values in (("decided", decided), ("in force", in_force)):
        median, worst = statistics.median(values) * 1000, max(values) * 1000
        print(f"cut {what}: median {median:.1f} ms, worst {worst:.1f} ms of {len(values)}")


if __name__ == "__main__":
    main()
