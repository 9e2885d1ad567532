"""What ours aims at in our own plant, run and judged: a row for each target, with the command of each run.

    python -m tests.benchmarks.targets [--only ticks,promise] [--processes 2] [--data DIR] [--json FILE]

``--data`` holds ``traces`` and ``profiles``. Other targets have benchmarks of their own: peers under short watts
(``tests.benchmarks.power.watts_short``), NVIDIA's simulator (``tests/benchmarks/dynamo_replay.py``), the optimiser's
time (``tests.benchmarks.optimise``).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from planner.sim.evaluation.scores import score
from planner.sim.evaluation.simulation import simulate
from planner.sim.policies.ours import OurPlanner
from tests.benchmarks.plant.by_part import asked

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("WATTSCALE_SHARED") or REPOSITORY.parent / "shared") / "data"
SERVEGEN = "--trace servegen_m_large_36h_x0.02.csv.gz --profile qwen3-32b_h200_vllm_tp1p_tp1d --nodes 1 --start 2p1d"
CONV24 = (
    "--trace azure2024_conv_weekday24h_x0.05.csv.gz --profile llama3.1-70b_h100_vllm_tp4p_tp4d --gpu h100 "
    "--start 4p1d --ttft-ms 1000 --itl-ms 25"
)
LONG = (
    "--trace servegen_deepseek_r1_first12h_x0.3.csv.gz --profile qwen3-235b-fp8_h200_vllm_tp4p_tp4d --start 2p3d "
    "--nodes 8 --ttft-ms 2000 --itl-ms 40"
)
SEVERE = f"{CONV24} --rate 10 --duration 3600 --nodes 1 --gpus-per-node 20"
INTERVALS_S = (30, 10, 5)
WINDOWS = {
    **{f"ServeGen, {hour}:00": f"{SERVEGEN} --from {hour * 3600} --duration 5400" for hour in (6, 12, 28)},
    **{
        f"Azure 2024 at 4x, {hour}:00": f"{CONV24} --rate 4 --nodes 3 --from {hour * 3600} --duration 3600"
        for hour in (0, 2, 4)
    },
}
DAYS = {f"from {offset_s} s": f"{SERVEGEN} --from {offset_s}" for offset_s in (0, 10, 20)}
"""The 36 hours, begun at three offsets: the median counts, because single runs move by up to 3 %."""
CLAIRVOYANT_MJ = 95.0
"""Of the best fleet with fixed caps known to carry the 36 hours; it knows them (planner/sim/BOUND.md)."""


@dataclass(frozen=True, slots=True)
class RunFigures:
    """What a run of ours came to. ``parts``: the good share in each sixth of the time."""

    good: float
    gpu_hours: float
    serving_mj: float
    changes_per_hour: float
    parts: tuple[float, ...]
    misses: Mapping[str, int]

    @property
    def text(self) -> str:
        return f"{self.good:.2%}, {self.gpu_hours:.2f} GPU-h, {self.serving_mj:.2f} MJ"


@dataclass(frozen=True, slots=True)
class PlantTarget:
    """What is aimed at, the runs that it takes, and whether they reach it: the judge's text and verdict."""

    aim: str
    runs: Mapping[str, str]
    """The options of ``wattscale simulate`` by the run's name."""
    judge: Callable[[Mapping[str, RunFigures]], tuple[str, bool]]


def severe(found: Mapping[str, RunFigures]) -> tuple[str, bool]:
    short, ample = found["short"].good, found["ample"].good
    return f"{short:.2%} and {ample:.2%}", short >= 0.96 and ample >= 0.988


def middle(found: Mapping[str, RunFigures]) -> RunFigures:
    """The median of each figure over the runs."""
    runs = list(found.values())
    return RunFigures(
        median(one.good for one in runs),
        median(one.gpu_hours for one in runs),
        median(one.serving_mj for one in runs),
        median(one.changes_per_hour for one in runs),
        tuple(map(median, zip(*(one.parts for one in runs), strict=True))),
        {},
    )


def fixed(found: Mapping[str, RunFigures]) -> tuple[str, bool]:
    one = middle(found)
    met = one.good >= 0.98 and one.gpu_hours <= 100 and one.serving_mj <= 100 and one.changes_per_hour <= 12
    return f"{one.text}, {one.changes_per_hour:.1f} changes", met


def promise(found: Mapping[str, RunFigures]) -> tuple[str, bool]:
    one = middle(found)
    met = abs(one.good - 0.97) <= 0.003 and one.gpu_hours <= 95 and one.serving_mj <= 97 and min(one.parts) >= 0.95
    each = ", ".join(f"{run.serving_mj:.2f}" for run in found.values())
    return f"{one.text} ({each}); sixths {', '.join(f'{part:.2%}' for part in one.parts)}", met


def energy(found: Mapping[str, RunFigures]) -> tuple[str, bool]:
    one = middle(found)
    times = one.serving_mj / CLAIRVOYANT_MJ
    return f"{one.text}: {times - 1:+.1%}", times <= 1.08


def cold(found: Mapping[str, RunFigures]) -> tuple[str, bool]:
    first = found["an hour"].parts[0]
    return f"{first:.2%}", first >= 0.8


def ticks(found: Mapping[str, RunFigures]) -> tuple[str, bool]:
    lines, met = [], True
    for window in WINDOWS:
        base, *others = (found[f"{window}, {interval_s} s"] for interval_s in INTERVALS_S)
        apart = [(one.gpu_hours / base.gpu_hours - 1, (one.good - base.good) * 100) for one in others]
        met &= all(abs(hours) <= 0.05 and abs(points) <= 0.5 for hours, points in apart)
        shown = ", ".join(f"{hours:+.1%} {points:+.2f}" for hours, points in apart)
        lines.append(f"{window}: {base.good:.2%}, {base.gpu_hours:.2f}; {shown}")
    return "<br>".join(lines), met


def held(found: Mapping[str, RunFigures]) -> tuple[str, bool]:
    (one,) = found.values()
    by_decision = {cause: count for cause, count in one.misses.items() if cause.startswith("held:") and count}
    told = ", ".join(f"{cause} {count}" for cause, count in one.misses.items() if count)
    return f"{one.text}; missed by {told}", "held:scaling_in_progress" not in by_decision


TARGETS = {
    "severe": PlantTarget(
        "9,800 W of 14,000: 96 % good; all watts: 98.8 %",
        {"short": f"{SEVERE} --budget-watts 9800", "ample": SEVERE},
        severe,
    ),
    "fixed": PlantTarget(
        "36 h ServeGen: 98.0 % at 100 GPU-h, 100 MJ, 12 changes an hour and pool",
        {label: f"{options} --ttft-quantile 0.85" for label, options in DAYS.items()},
        fixed,
    ),
    "promise": PlantTarget(
        "36 h ServeGen, a promise of 97 %: within 0.3 points at 95 GPU-h, 97 MJ, 95 % in each sixth",
        {label: f"{options} --slo-share 0.97" for label, options in DAYS.items()},
        promise,
    ),
    "energy": PlantTarget(
        f"within 8 % of the best clairvoyant with fixed caps ({CLAIRVOYANT_MJ} MJ)",
        {label: f"{options} --slo-share 0.97" for label, options in DAYS.items()},
        energy,
    ),
    "cold": PlantTarget(
        "an hour from 1p1d: 80 % good in its first ten minutes",
        {"an hour": "--start 1p1d --startup-s 60"},
        cold,
    ),
    "ticks": PlantTarget(
        "ticks of 10 and 5 s within 5 % of GPU-hours and 0.5 points of 30 s",
        {
            f"{window}, {interval_s} s": f"{options} --interval-s {interval_s}"
            for window, options in WINDOWS.items()
            for interval_s in INTERVALS_S
        },
        ticks,
    ),
    "long": PlantTarget("12 h of long answers: nothing held by a decision that is carried out", {"12 h": LONG}, held),
}


def run(options: str, data: Path) -> RunFigures:
    """One run of ours with these options of ``wattscale simulate``."""
    folders = {"--trace": "traces", "--profile": "profiles"}
    words = [
        str(data / folders[before] / word) if before in folders else word
        for before, word in pairwise(("", *options.split()))
    ]
    what = asked(words)
    ended = simulate(what.scenario, OurPlanner(what.settings))
    found, records = score(ended), ended.run.plant.records
    good = records.met(what.scenario.ttft_ms, what.scenario.itl_ms)
    edges = np.linspace(0.0, what.scenario.end_s, 7)
    sixth = np.clip(np.searchsorted(edges, records.column("t_s"), side="right") - 1, 0, 5)
    parts = tuple(float(good[sixth == part].mean()) for part in range(6) if (sixth == part).any())
    return RunFigures(
        found.good_share,
        found.gpu_hours,
        found.serving_energy_joules / 1e6,
        max(found.changes_per_hour.values(), default=0.0),
        parts,
        found.misses,
    )


def measured(names: Sequence[str], processes: int, data: Path) -> dict[str, dict[str, RunFigures]]:
    """Each target's figures by run. Runs that two targets share are made once."""
    wanted = list(dict.fromkeys(options for name in names for options in TARGETS[name].runs.values()))
    found: dict[str, RunFigures] = {}
    with ProcessPoolExecutor(processes) as pool:
        running = {pool.submit(partial(run, data=data), options): options for options in wanted}
        for done in as_completed(running):
            found[running[done]] = done.result()
            print(f"{len(found)} of {len(wanted)}: {running[done]}", file=sys.stderr, flush=True)
    return {name: {label: found[options] for label, options in TARGETS[name].runs.items()} for name in names}


def table(found: Mapping[str, Mapping[str, RunFigures]]) -> str:
    """Markdown: a row a target."""
    lines = ["| target | measured | met |", "| --- | --- | --- |"]
    for name, figures in found.items():
        text, met = TARGETS[name].judge(figures)
        lines.append(f"| {TARGETS[name].aim} | {text} | {'yes' if met else 'no'} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(TARGETS))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    names = args.only.split(",")
    if unknown := set(names) - set(TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    found = measured(names, args.processes, args.data)
    if args.json is not None:
        kept = {name: {label: asdict(one) for label, one in of.items()} for name, of in found.items()}
        args.json.write_text(json.dumps(kept, indent=1))
    print(table(found))
    for name in names:
        for label, options in TARGETS[name].runs.items():
            print(f"{name}, {label}: wattscale simulate --policy ours {options}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
