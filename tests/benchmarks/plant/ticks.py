"""Whether short ticks decide as long ones do: our planner on generated loads at ticks of 5, 10 and 30 s.

    python -m tests.benchmarks.plant.ticks --profile DIR [--seeds 21,22,23,24,25] [--load groups]

Prints, for each load and tick, means over the seeds: good requests, GPU-hours, prefill's correction, and the difference
to the longest tick. Engines are as in their profile, so that a correction above 1 is bursts.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from deploy.demo.demo_profile import profile_of_both_phases
from planner.adapters.traces import Trace
from planner.domain.request import Request
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.evaluation.scores import score
from planner.sim.evaluation.simulation import SimulationRun, simulate
from planner.sim.policies.ours import DEPLOYMENT, OurPlanner, OursSettings
from planner.sim.workload.generated import AZURE_CONVERSATION_2023, Figures, generated
from planner.sim.workload.scenario import Scenario, card_of, disaggregated

END_S, SAMPLE_S = 3600.0, 5.0
SHORT_PROMPTS = Figures(isl=((0.0, 200), (0.5, 700), (1.0, 1300)), osl=((0.0, 8), (0.5, 60), (1.0, 200)), gap_cv2=1.0)


def jumping(seed: int, rates: Sequence[float], dwell_s: float) -> Iterator[Request]:
    """A rate that jumps to another one at random, after ``dwell_s`` in the mean."""
    rng, t_s = random.Random(seed), 0.0
    while True:
        rate, stay_s = rng.choice(rates), rng.expovariate(1.0 / dwell_s)
        yield from _piece(rng.randrange(2**32), rate, t_s, stay_s)
        t_s += stay_s


def walking(seed: int, rate: float, step: float, every_s: float) -> Iterator[Request]:
    """A rate whose logarithm takes a random step every ``every_s`` and reverts to the mean."""
    rng, level = random.Random(seed), 0.0
    for number in itertools.count():
        yield from _piece(rng.randrange(2**32), rate * math.exp(level), number * every_s, every_s)
        level = 0.9 * level + rng.gauss(0.0, step)


def _piece(seed: int, rate: float, from_s: float, for_s: float) -> Iterator[Request]:
    figures = Figures(AZURE_CONVERSATION_2023.isl, AZURE_CONVERSATION_2023.osl, gap_cv2=1.0)
    for request in generated(seed, requests_per_s=rate, wave=0.0, figures=figures):
        if request.t_s >= for_s:
            return
        yield request._replace(t_s=from_s + request.t_s)


def with_groups(load: Iterator[Request], seed: int, groups_per_s: float) -> Iterator[Request]:
    """A load, and groups of five to ten short prompts at once."""
    return heapq.merge(load, _groups(seed, groups_per_s), key=lambda request: request.t_s)


def _groups(seed: int, groups_per_s: float) -> Iterator[Request]:
    rng = random.Random(seed)
    prompts = generated(seed, figures=SHORT_PROMPTS)
    t_s = 0.0
    while True:
        t_s += rng.expovariate(groups_per_s)
        yield from (next(prompts)._replace(t_s=t_s) for _ in range(rng.randint(5, 10)))


LOADS: dict[str, Callable[[int], Iterator[Request]]] = {
    "jumps": lambda seed: jumping(seed, (2.0, 3.0, 4.0), 120.0),
    "walk": lambda seed: walking(seed, 4.0, 0.1, 30.0),
    "groups": lambda seed: with_groups(jumping(seed, (1.5, 3.0, 4.5), 240.0), seed, 0.05),
    "more groups": lambda seed: with_groups(jumping(seed, (3.0, 5.0, 8.0), 300.0), seed, 0.1),
}


class CorrectionReader(OurPlanner):
    """Ours, whose correction of prefill is sampled every few seconds."""

    corrections: list[float]

    def attach(self, run: SimulationRun) -> None:
        super().attach(run)
        self.corrections = []
        run.plant.events.at(SAMPLE_S, self._sample, run)

    def _sample(self, run: SimulationRun) -> None:
        assert self._loop is not None
        self.corrections.append(self._loop.state.deployments[DEPLOYMENT].learned.corrections.get("prefill", 1.0))
        if not run.over:
            run.plant.events.at(run.now_s + SAMPLE_S, self._sample, run)


def trace(name: str, seed: int) -> Trace:
    return Trace.of(name, itertools.takewhile(lambda one: one.t_s < END_S, LOADS[name](seed)))


def ran(load: Trace, profile_folder: Path, seed: int, tick_s: float) -> tuple[float, float, float]:
    """Percent good, GPU-hours and the mean correction of prefill."""
    profile = profile_of_both_phases(profile_folder, "h200")
    scenario = Scenario(
        trace=load,
        profile=profile,
        cluster=ClusterSpec(1, 8, card_of("h200")),
        pools=disaggregated(profile, "h200", start=(2, 1)),
        ttft_ms=1000.0,
        itl_ms=40.0,
        seed=seed,
        duration_s=END_S,
    )
    policy = CorrectionReader(OursSettings(interval_s=tick_s))
    found = score(simulate(scenario, policy))
    return 100.0 * found.good_share, found.gpu_hours, float(np.mean(policy.corrections))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--profile", type=Path, required=True)
    parser.add_argument("--seeds", default="21,22,23,24,25")
    parser.add_argument("--ticks", default="5,10,30", help="seconds; the last is compared with")
    parser.add_argument("--load", choices=sorted(LOADS), action="append")
    asked = parser.parse_args(argv)
    seeds, ticks = ([int(part) for part in text.split(",")] for text in (asked.seeds, asked.ticks))
    print("| load | tick | good % | GPU-h | correction | points | GPU-hours, % (by seed) |")
    print("| --- " * 7 + "|")
    for name in asked.load or LOADS:
        traces = {seed: trace(name, seed) for seed in seeds}
        found = {tick: np.array([ran(traces[seed], asked.profile, seed, tick) for seed in seeds]) for tick in ticks}
        for tick, runs in found.items():
            points = (runs - found[ticks[-1]])[:, 0].mean()
            more = 100.0 * (runs[:, 1] / found[ticks[-1]][:, 1] - 1.0)
            good, hours, factor = runs.mean(axis=0)
            by_seed = ", ".join(f"{each:+.1f}" for each in more)
            figures = f"{good:.2f} | {hours:.3f} | {factor:.3f} | {points:+.2f} | {more.mean():+.1f} ({by_seed})"
            print(f"| {name} | {tick} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
