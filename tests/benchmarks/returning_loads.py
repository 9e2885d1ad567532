"""Loads that leave and come back, in our plant: good requests, GPU-hours and changes of our planner at its defaults.

    python -m tests.benchmarks.returning_loads [--profile DIR] [--only burst] [--ttft-quantile 0.95]

Bursts, steps and waves of arrivals (log-normal lengths, means 1200 and 220 tokens, seed 1) on 16 H200, and mixes that
flip between long prompts and long answers (``generated.flipping``, seed 1) on 16 H100 without a budget of watts. The
targets are 1000 and 40 ms, the start-up time 60 s.
"""

from __future__ import annotations

import argparse
import math
import random
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path

from deploy.demo.demo_profile import profile_of_both_phases
from planner.adapters.profiles import load_profile
from planner.adapters.traces import Trace
from planner.domain.profile import Profile
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.evaluation.scores import score
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies.catalogue import make
from planner.sim.policies.ours import OursSettings
from planner.sim.workload.generated import ANSWER_HEAVY, PROMPT_HEAVY, flipping
from planner.sim.workload.scenario import Scenario, card_of, disaggregated
from tests.benchmarks.power import watts_short

SEED, SPREAD, GPUS = 1, 0.8, 16
FLIPPING_S = 4800.0
Rate = Callable[[float], float]


def cycle(*parts: tuple[float, float]) -> Rate:
    """Seconds and requests per second of each part, again and again."""
    whole_s = sum(seconds for seconds, _ in parts)

    def rate(t_s: float) -> float:
        left_s = t_s % whole_s
        for seconds, per_s in parts:
            if left_s < seconds:
                return per_s
            left_s -= seconds
        return parts[-1][1]

    return rate


ARRIVALS: Mapping[str, tuple[Rate, float]] = {
    "burst 20 s at 24.8/s, 60 s at 8/s": (cycle((20, 24.8), (60, 8)), 3000.0),
    "burst 60 s at 20/s, 120 s at 8/s": (cycle((60, 20), (120, 8)), 3000.0),
    "burst 120 s at 16/s, 480 s at 8/s": (cycle((120, 16), (480, 8)), 3000.0),
    "burst 300 s at 16/s, 900 s at 8/s": (cycle((300, 16), (900, 8)), 3000.0),
    "steps of 600 s: 8, 20, 10/s": (cycle((600, 8), (600, 20), (600, 10)), 3600.0),
    "steady 14/s": (cycle((1, 14)), 2400.0),
    "wave of 1200 s, 4 to 20/s": (lambda t_s: 12.0 - 8.0 * math.cos(2.0 * math.pi * t_s / 1200.0), 3600.0),
}
FLIPS = ((600.0, 0.3), (600.0, 0.45), (600.0, 0.6), (300.0, 0.45), (150.0, 0.45))


def arrivals(rate: Rate, until_s: float, seed: int = SEED, gap_cv2: float = 1.0) -> Trace:
    """Requests at ``rate``, with gaps drawn at the rate at that time: exponential ones, or of a gamma distribution with
    another squared coefficient of variation.
    """
    rng, t_s = random.Random(seed), 0.0
    times, isl, osl = array("d"), array("l"), array("l")

    def tokens(mean: float, most: int) -> int:
        return min(most, max(1, int(rng.lognormvariate(math.log(mean) - SPREAD * SPREAD / 2, SPREAD))))

    def gap(per_s: float) -> float:
        if gap_cv2 == 1.0:
            return rng.expovariate(per_s)
        return rng.gammavariate(1.0 / gap_cv2, gap_cv2 / per_s)

    while (t_s := t_s + gap(rate(t_s))) < until_s:
        times.append(t_s)
        isl.append(tokens(1200.0, 12_000))
        osl.append(tokens(220.0, 2000))
    return Trace("generated", times, isl, osl)


def scenarios(folder: Path | None) -> Iterator[tuple[str, Callable[[], Scenario]]]:
    """Every case by its name; ``folder`` has the profile of the cases on H200."""
    for name, (rate, until_s) in ARRIVALS.items():
        yield name, partial(bursts, rate, until_s, folder)
    for flip_s, load in FLIPS:
        yield f"flips of {flip_s:.0f} s, load {load:g}", partial(_flips, flip_s, load)


def profile_in(folder: Path | None, card: str = "h200") -> Profile:
    """The profile in ``folder``; the built-in one without it."""
    return profile_of_both_phases(None, card) if folder is None else load_profile(folder)


def bursts(rate: Rate, until_s: float, folder: Path | None, seed: int = SEED) -> Scenario:
    """Arrivals at ``rate`` on 16 H200."""
    profile = profile_in(folder)
    pools = disaggregated(profile, "h200", startup_s=60.0, start=(5, 2))
    return Scenario(arrivals(rate, until_s, seed), profile, ClusterSpec(2, 8, card_of("h200")), pools, 1000.0, 40.0)


def _flips(flip_s: float, load: float) -> Scenario:
    world = watts_short.scenario(watts_short.ShortCase(GPUS, load, 1.0))
    full_mw = world.cluster.card.default_mw
    phases = tuple(
        (figures, load * watts_short.served_per_s(world.profile, figures, GPUS, full_mw))
        for figures in (PROMPT_HEAVY, ANSWER_HEAVY)
    )
    requests = takewhile(lambda request: request.t_s < FLIPPING_S, flipping(SEED, phases, flip_s))
    return replace(world, trace=Trace.of("flipping", requests), budget=None)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", type=Path, help="of the cases on H200; default: the built-in one")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--ttft-quantile", type=float, default=0.95)
    args = parser.parse_args(argv)
    print("| load | good % | GPU-h | MJ of held GPUs | changes an hour |\n| --- | --- | --- | --- | --- |")
    for name, made in scenarios(args.profile):
        if args.only in name:
            found = score(simulate(made(), make("ours", OursSettings(ttft_quantile=args.ttft_quantile))))
            changes = ", ".join(f"{pool} {count:.1f}" for pool, count in found.changes_per_hour.items())
            hours, joules = f"{found.gpu_hours:.3f}", f"{found.serving_energy_joules / 1e6:.3f}"
            print(f"| {name} | {found.good_share:.2%} | {hours} | {joules} | {changes} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
