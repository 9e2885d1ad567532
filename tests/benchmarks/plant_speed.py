"""How fast the plant is, with our planner and power in the loop: a day of 300,000 requests on one core.

Run from anywhere: ``python tests/benchmarks/plant_speed.py [--json]``. Targets: below 60 s, below 1 GB.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from deploy.demo.demo_profile import demo_profile
from planner.adapters.traces import Trace
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies.catalogue import make
from planner.sim.workload.generated import generated
from planner.sim.workload.scenario import Scenario, card_of, disaggregated

REQUESTS = 300_000
DAY_S = 86_400.0


def day() -> Trace:
    """A day with its wave, from the built-in generator."""
    return Trace.of("generated day", itertools.islice(generated(0, requests_per_s=REQUESTS / DAY_S), REQUESTS))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    profile = demo_profile("h200")
    cluster = ClusterSpec(4, 8, card_of("h200"))
    scenario = Scenario(day(), profile, cluster, disaggregated(profile, "h200"), 1000.0, 40.0)
    ended = simulate(scenario, make("ours"))
    figures = {
        "requests": len(ended.run.plant.records),
        "load_hours": scenario.end_s / 3600,
        "wall_s": ended.wall_s,
        "events": ended.run.plant.events.count,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(figures) if args.json else "\n".join(f"{name}: {value:.6g}" for name, value in figures.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
