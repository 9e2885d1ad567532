"""The shipped power curves against published measurements: cap sweeps, and uncapped draws of served models.

    python -m tests.benchmarks.power_calibration [--json]

Reads ``../shared/data/power``. Sweeps are compared only where the cap is at least half of TDP, the lowest the planner
gives. The second table shows why P_u is learned: its spread over models and batches, and what the learner makes of a
model's draws when each is read with 3 % noise.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from planner.adapters.power_priors import MIN_USEFUL_OF_TDP, Phase, curve, gpu
from planner.core.power.p_u_estimator import LearnedPower, Reading, batch_bucket
from tests.curve_errors import Measurement, calibrate
from tests.shared_data import find_shared

PHASES = {
    "compute_bound_proxy_for_prefill": Phase.PREFILL,
    "prefill": Phase.PREFILL,
    "decode_heavy_batched": Phase.DECODE_DENSE,
    "decode_heavy_single": Phase.SINGLE_STREAM,
    "decode": Phase.SINGLE_STREAM,
}
NOISE, READINGS = 0.03, 150


@dataclass(frozen=True, slots=True)
class Spread:
    """Measured uncapped draws of one GPU type, in watts, and the mean error of P_u by prior and as learned."""

    gpu_type: str
    configurations: int
    prior_watts: float
    least_watts: float
    median_watts: float
    most_watts: float
    prior_error: float
    learned_error: float


def sweeps(path: Path) -> Iterator[Measurement]:
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            phase = PHASES.get(row["phase"])
            if phase is None or row["kind"] != "measured" or not row["cap_w"] or not row["perf_frac"]:
                continue
            tdp, cap = float(row["tdp_w"]), float(row["cap_w"])
            if cap < MIN_USEFUL_OF_TDP * tdp:
                continue
            draw = float(row["power_w"]) if row["power_w"] else None
            yield Measurement(row["gpu"], tdp, phase, cap, float(row["perf_frac"]), draw)


def spreads(path: Path) -> Iterator[Spread]:
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["power_w_per_gpu"]]
    for name in sorted({row["gpu"] for row in rows}):
        mine = [row for row in rows if row["gpu"] == name]
        watts = [float(row["power_w_per_gpu"]) for row in mine]
        learned = [_learned(row) for row in mine]
        prior = curve(gpu(name), Phase.DECODE_DENSE).p_u_mw / 1000
        yield Spread(
            gpu_type=name,
            configurations=len(mine),
            prior_watts=prior,
            least_watts=min(watts),
            median_watts=statistics.median(watts),
            most_watts=max(watts),
            prior_error=statistics.mean(abs(prior / w - 1) for w in watts),
            learned_error=statistics.mean(abs(got / w - 1) for got, w in zip(learned, watts, strict=True)),
        )


def _learned(row: dict[str, str]) -> float:
    """P_u in watts after noisy readings of one configuration, uncapped and busy."""
    prior = curve(gpu(row["gpu"]), Phase.DECODE_DENSE)
    batch = batch_bucket(float(row["avg_batch"] or 1))
    rng, state = random.Random(f"{row}"), LearnedPower()
    for i in range(READINGS):
        draw = round(float(row["power_w_per_gpu"]) * 1000 * rng.gauss(1.0, NOISE))
        state = state.observe(batch, prior, Reading(draw, prior.max_mw, 1.0, 60.0), i * 5.0)
    return state.p_u_mw(batch, prior) / 1000


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    caps, served = find_shared("power/cap_sweeps.csv"), find_shared("power/mlenergy_v3_llm.csv")
    if caps is None or served is None:
        print("no shared power data beside this checkout: nothing to compare with", file=sys.stderr)
        return 2
    fits, draws = calibrate(sweeps(caps)), list(spreads(served))
    if args.json:
        print(json.dumps({"sweeps": [asdict(f) for f in fits], "draws": [asdict(d) for d in draws]}, indent=1))
        return 0
    print(f"{'GPU':<52}{'phase':<15}{'points':>7}{'speed bias':>12}{'error':>8}{'worst':>8}{'draw error':>12}")
    for fit in fits:
        shares = (fit.speed_bias, fit.speed_error, fit.speed_worst, fit.draw_error)
        bias, error, worst, draw = ("-" if s is None else f"{s:+.1%}" if s is shares[0] else f"{s:.1%}" for s in shares)
        print(f"{fit.gpu_type[:50]:<52}{fit.phase.value:<15}{fit.points:>7}{bias:>12}{error:>8}{worst:>8}{draw:>12}")
    for d in draws:
        print(
            f"{d.gpu_type}: {d.configurations} served configurations draw {d.least_watts:.0f} to {d.most_watts:.0f} W "
            f"uncapped (median {d.median_watts:.0f}); prior P_u {d.prior_watts:.0f} W is off by {d.prior_error:.0%} "
            f"on average, learned by {d.learned_error:.1%}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
