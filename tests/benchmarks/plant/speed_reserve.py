"""What the reserve of speed makes of steady, bursty and flipping loads, beside the burstiness that it could follow.

    python -m tests.benchmarks.plant.speed_reserve [--profile DIR --gpu h200 --start 5,2] [--reserves 1.0,1.3]

An hour of our planner at its defaults on 40 GPUs with all watts, start-up time 60 s, targets 1000 and 40 ms, lengths as
in ``returning_loads`` with seed 21. Beside each load: the 95 % quantile of a second's load, and of a tick's (30 s),
over the mean of the tick before: the reserves that would follow from the load's own history.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np

from planner.adapters.traces import Trace
from planner.core.allocation import site
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.evaluation.scores import score
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies.catalogue import make
from planner.sim.workload.scenario import Scenario, card_of, disaggregated
from tests.benchmarks.returning_loads import Rate, arrivals, cycle, profile_in

SEED, UNTIL_S, TICK_S = 21, 3600.0, 30.0


def loads(mean: float) -> Mapping[str, tuple[Rate, float]]:
    """Rate and squared coefficient of variation of the gaps, by name; all have the same mean rate."""
    return {
        "steady, Poisson": (cycle((1.0, mean)), 1.0),
        "bursty, gaps with a coefficient of variation of 3": (cycle((1.0, mean)), 9.0),
        "flips every 600 s between half and one and a half": (cycle((600.0, mean / 2), (600.0, 1.5 * mean)), 1.0),
    }


def followed(trace: Trace, width_s: float) -> float:
    """The 95 % quantile of the load of ``width_s`` over the mean of the tick before it."""
    tokens, at_s = np.array(trace.isl, dtype=float), np.array(trace.t_s)
    fine = np.histogram(at_s, np.arange(0.0, UNTIL_S + width_s, width_s), weights=tokens)[0] / width_s
    ticks = np.histogram(at_s, np.arange(0.0, UNTIL_S + TICK_S, TICK_S), weights=tokens)[0] / TICK_S
    before = ticks[np.maximum(0, (np.arange(len(fine)) * width_s // TICK_S).astype(int) - 1)]
    return float(np.quantile((fine / np.maximum(before, 1e-9))[int(TICK_S / width_s) :], 0.95))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", type=Path, help="default: the built-in one")
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--start", default="5,2", help="prefill and decode workers that are ready")
    parser.add_argument("--rate", type=float, default=12.0, help="requests a second in the mean")
    parser.add_argument("--reserves", default="1.0,1.15,1.3,1.6")
    args = parser.parse_args(argv)
    profile = profile_in(args.profile, args.gpu)
    first, second = (int(part) for part in args.start.split(","))
    pools = disaggregated(profile, args.gpu, startup_s=60.0, start=(first, second))
    print("| load | of a second, of a tick | reserve | good % | GPU-h | MJ of held GPUs |\n" + "| --- " * 6 + "|")
    for name, (rate, gap_cv2) in loads(args.rate).items():
        trace = arrivals(rate, UNTIL_S, SEED, gap_cv2)
        seen = f"{followed(trace, 1.0):.2f}, {followed(trace, TICK_S):.2f}"
        for reserve in (float(part) for part in args.reserves.split(",")):
            world = Scenario(trace, profile, ClusterSpec(5, 8, card_of(args.gpu)), pools, 1000.0, 40.0)
            with patch.object(site, "SPEED_RESERVE", reserve):
                found = score(simulate(world, make("ours")))
            figures = f"{found.good_share:.2%} | {found.gpu_hours:.2f} | {found.serving_energy_joules / 1e6:.2f}"
            print(f"| {name} | {seen} | {reserve:g} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
