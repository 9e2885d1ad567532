"""A morning that comes again each day, in our plant: what our planner gains by past days, and by their pattern.

    python -m tests.benchmarks.future.returning_days [--profile DIR] [--startup-s 60] [--ramp-min 30]

From 5:30 to 9:00 of a day whose load rises from 3 to 15 requests a second from 7:00 on (log-normal lengths, means 1200
and 220 tokens, seed 1, on 16 H200). The past days have the same means and noise of their own. The targets are 1000 and
40 ms.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from pathlib import Path

from deploy.archive.past_load import QUARTER_S, WHOLE_S
from planner.domain.request import ObservedLoad
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.evaluation.scores import score
from planner.sim.evaluation.simulation import SimulationRun, simulate
from planner.sim.policies.catalogue import make
from planner.sim.policies.ours import OursSettings
from planner.sim.workload.scenario import Scenario, card_of, disaggregated
from tests.benchmarks.returning_loads import Rate, arrivals, profile_in

DAY_S, HOUR_S = 86_400.0, 3600.0
BEGIN_S, RAMP_S, END_S = 5.5 * HOUR_S, 7.0 * HOUR_S, 9.0 * HOUR_S
LOW, HIGH, EVENING_S = 3.0, 15.0, 19.0 * HOUR_S
ISL, OSL = 1200.0, 220.0
SEED = 11


def morning(ramp_s: float) -> Rate:
    """Requests a second at a time of the day."""

    def rate(t_s: float) -> float:
        t_s %= DAY_S
        up, down = (t_s - RAMP_S) / ramp_s, (t_s - EVENING_S) / ramp_s
        return LOW + (HIGH - LOW) * (min(1.0, max(0.0, up)) - min(1.0, max(0.0, down)))

    return rate


def past(rate: Rate, days: int) -> tuple[ObservedLoad, ...]:
    """What an archive holds of the days before, up to 0 of the run's clock, which is ``BEGIN_S`` of a day."""
    rng, found, t_s = random.Random(SEED), [], -days * DAY_S
    while t_s < 0.0:
        every_s = QUARTER_S if t_s < -WHOLE_S else 30.0
        t_s += every_s
        mean = rate(t_s - every_s / 2.0 + BEGIN_S) * every_s
        found.append(ObservedLoad(t_s, every_s, max(0.0, rng.gauss(mean, math.sqrt(mean))), ISL, OSL))
    return tuple(found)


def ramp_good(run: SimulationRun) -> float:
    """Share of the requests of the three quarters of an hour from 7:00 on that were good."""
    records, begun_s = run.plant.records, RAMP_S - BEGIN_S
    t_s = records.column("t_s")
    there = (t_s >= begun_s) & (t_s < begun_s + 3.0 * QUARTER_S)
    good = there & records.met(run.scenario.ttft_ms, run.scenario.itl_ms)
    return float(good.sum() / max(1, there.sum()))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", type=Path, help="default: the built-in one")
    parser.add_argument("--startup-s", type=float, action="append", help="repeatable (default 60)")
    parser.add_argument("--ramp-min", type=float, action="append", help="minutes from low to high (default 30)")
    parser.add_argument("--days", type=int, action="append", help="past days (repeatable; default 2)")
    args = parser.parse_args(argv)
    profile = profile_in(args.profile)
    print("| start-up | ramp | past days | predictor | good % | good %, 7:00 to 7:45 | GPU-h | MJ of held GPUs |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for startup_s in args.startup_s or [60.0]:
        for ramp_min in args.ramp_min or [30.0]:
            rate = morning(60.0 * ramp_min)
            trace = arrivals(lambda t_s, rate=rate: rate(t_s + BEGIN_S), END_S - BEGIN_S)  # type: ignore[misc]
            pools = disaggregated(profile, "h200", startup_s=startup_s, start=(2, 1))
            world = Scenario(trace, profile, ClusterSpec(2, 8, card_of("h200")), pools, 1000.0, 40.0)
            known = [(0, "blend"), *((days, name) for days in args.days or [2] for name in ("blend", "blend+day"))]
            for days, predictor in known:
                ended = simulate(world, make("ours", OursSettings(predictor=predictor, past_load=past(rate, days))))
                found = score(ended)
                times = f"{startup_s:g} s | {ramp_min:g} min | {days} | {predictor}"
                hours, joules = f"{found.gpu_hours:.3f}", f"{found.serving_energy_joules / 1e6:.3f}"
                print(
                    f"| {times} | {found.good_share:.2%} | {ramp_good(ended.run):.2%} | {hours} | {joules} |",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
