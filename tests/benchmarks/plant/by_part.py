"""Where our planner's GPU-hours, joules and late requests go: by part of the run, and by length of prompt and answer.

    python -m tests.benchmarks.plant.by_part --parts 6 --trace T.csv.gz --profile DIR --start 2p1d --slo-share 0.97

Takes the options of ``wattscale simulate``, and runs ``ours`` once. ``held`` and ``wanted`` are the mean counts of
workers, ready or starting, and of what the optimiser recommends; ``quantile`` is the mean that is sized for.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploy.cli.build import simulate as command
from deploy.cli.build import simulate_options
from planner.sim.evaluation.scores import score
from planner.sim.evaluation.simulation import Ended, SimulationRun, simulate
from planner.sim.policies.ours import DEPLOYMENT, OurPlanner

SAMPLE_S = 30.0


class Glance(NamedTuple):
    """The run at an instant; GPU-hours and joules since its start."""

    t_s: float
    gpu_hours: float
    energy_j: float
    quantile: float
    held: Mapping[str, int]
    wanted: Mapping[str, int]


class Sampled(OurPlanner):
    """Ours, looked at every half minute."""

    samples: list[Glance]

    def attach(self, run: SimulationRun) -> None:
        super().attach(run)
        self.samples = []
        run.plant.events.at(0.0, self._sample, run)

    def _sample(self, run: SimulationRun) -> None:
        assert self._loop is not None
        learned, plant = self._loop.state.deployments[DEPLOYMENT].learned, run.plant
        counts = {name: pool.ready + pool.starting for name, pool in plant.worker_counts().items()}
        wanted = {
            str(name): pool.recommendations[-1][1] for name, pool in learned.pools.items() if pool.recommendations
        }
        sized = self.settings.ttft_quantile if learned.slo is None else learned.slo.quantile
        self.samples.append(
            Glance(run.now_s, plant.gpu_hours(), plant.serving_energy_j(), sized, counts, {**counts, **wanted})
        )
        if not run.over:
            plant.events.at(run.now_s + SAMPLE_S, self._sample, run)


def rows(ended: Ended, samples: Sequence[Glance], parts: int) -> None:
    """Print a row for each part of the run."""
    run, pools = ended.run, sorted(samples[0].held)
    at_s = run.plant.records.column("t_s")
    prompts, answers = _met(ended)
    print("| from h | requests | good % | prompts, answers in time | quantile | held (wanted) | GPU-h | MJ |")
    print("| --- " * 8 + "|")
    edges = np.linspace(0.0, run.scenario.end_s, parts + 1).tolist()
    for start_s, end_s in pairwise(edges):
        now = [one for one in samples if start_s <= one.t_s <= end_s]
        of = (at_s >= start_s) & (at_s < end_s)
        if not of.any() or len(now) < 2:
            continue
        held = ", ".join(
            f"{name} {np.mean([one.held[name] for one in now]):.2f} ({np.mean([one.wanted[name] for one in now]):.2f})"
            for name in pools
        )
        both = f"{prompts[of].mean():.2%}, {answers[of].mean():.2%}"
        spent = f"{now[-1].gpu_hours - now[0].gpu_hours:.2f} | {(now[-1].energy_j - now[0].energy_j) / 1e6:.2f}"
        quantile = np.mean([one.quantile for one in now])
        good = (prompts & answers)[of].mean()
        print(f"| {start_s / 3600:.2f} | {of.sum()} | {good:.2%} | {both} | {quantile:.3f} | {held} | {spent} |")


def quarters(ended: Ended) -> None:
    """Print the good share by quarter of the prompts' and of the answers' lengths."""
    prompts, answers = _met(ended)
    good = prompts & answers
    for name, what in (("isl", "prompts"), ("osl", "answers")):
        order = np.argsort(ended.run.plant.records.column(name), kind="stable")
        shares = ", ".join(f"{good[part].mean():.2%}" for part in np.array_split(order, 4))
        print(f"good by quarter of the {what}, shortest first: {shares}")


def _met(ended: Ended) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    scenario, records = ended.run.scenario, ended.run.plant.records
    return records.column("ttft_ms") <= scenario.ttft_ms, records.column("itl_ms") <= scenario.itl_ms


def asked(options: Sequence[str]) -> simulate_options.Asked:
    """What these options of ``wattscale simulate`` ask for."""
    parser = argparse.ArgumentParser(add_help=False)
    command.register(parser.add_subparsers())
    return simulate_options.asked(parser.parse_args(["simulate", *options]))


def main(argv: Sequence[str] | None = None) -> int:
    outer = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    outer.add_argument("--parts", type=int, default=6)
    own, rest = outer.parse_known_args(argv)
    run = asked(rest)
    policy = Sampled(run.settings)
    ended = simulate(run.scenario, policy)
    found = score(ended)
    changes = ", ".join(f"{pool} {count:.1f}" for pool, count in found.changes_per_hour.items())
    figures = f"{found.gpu_hours:.2f} GPU-h, {found.serving_energy_joules / 1e6:.2f} MJ of held GPUs"
    print(f"{found.good_share:.2%} of {found.requests} requests good, {figures}, changes an hour: {changes}")
    print("misses:", ", ".join(f"{cause} {count}" for cause, count in found.misses.items() if count))
    rows(ended, policy.samples, own.parts)
    quarters(ended)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
