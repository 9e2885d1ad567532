"""Dynamo 1.6.1's own decision core on one deployment's observations, timed: for the figure beside ours.

Runs inside the referee's environment (``dynamo_replay_support/environment.py``), never in the project's: the folder of
a profile as its only argument, seconds of each tick as JSON on standard output.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
TICKS = 60
INTERVAL_S = 60.0


async def ticks_s(profile: str) -> list[float]:
    """Seconds of each decision after the first five."""
    from dynamo.planner.config.planner_config import PlannerConfig
    from dynamo.planner.core.types import (
        EngineCapabilities,
        TickInput,
        TrafficObservation,
        WorkerCapabilities,
        WorkerCounts,
    )
    from dynamo.planner.monitoring.perf_metrics import _convert_decode_profiling, _convert_prefill_profiling
    from dynamo.planner.plugins.clock import VirtualClock
    from dynamo.planner.plugins.orchestrator.engine_adapter import OrchestratorEngineAdapter

    from tests.benchmarks.dynamo_replay_support.modes import planner_config

    config = PlannerConfig.model_validate(planner_config("dynamo-sla", 500.0, 50.0))
    engine = EngineCapabilities(num_gpu=1, max_num_batched_tokens=8192, max_num_seqs=1024, max_kv_tokens=900_000)
    adapter: Any = OrchestratorEngineAdapter(config, WorkerCapabilities(engine, engine), clock=VirtualClock())
    await adapter.bootstrap_from_fpms(
        prefill_fpms=_convert_prefill_profiling(profile), decode_fpms=_convert_decode_profiling(profile)
    )
    spent: list[float] = []
    scheduled, counts = adapter.initial_tick(0.0), [2, 2]
    while len(spent) < TICKS:
        traffic = TrafficObservation(INTERVAL_S, 600.0 + 10.0 * (len(spent) % 7), 3000.0, 150.0)
        workers = WorkerCounts(counts[0], counts[1], counts[0], counts[1])
        seen = TickInput(scheduled.at_s, traffic if scheduled.need_traffic_metrics else None, workers)
        decides = scheduled.run_throughput_scaling
        started = time.perf_counter()
        effects = await adapter.tick(scheduled, seen)
        lasted = time.perf_counter() - started
        if decides:
            spent.append(lasted)
        if effects.scale_to is not None:
            wanted = (effects.scale_to.num_prefill, effects.scale_to.num_decode)
            counts = [new if new is not None else old for new, old in zip(wanted, counts, strict=True)]
        scheduled = effects.next_tick
    return spent[5:]


def main() -> int:
    """Time it and print."""
    os.environ.setdefault("DYN_LOG", "error")
    logging.disable(logging.WARNING)
    sys.path.insert(0, str(REPOSITORY))
    from tests.benchmarks.dynamo_replay_support import standins

    standins.install()
    print(json.dumps(asyncio.run(ticks_s(sys.argv[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
