"""Which forecast earns the default: wMAPE, share of intervals under-predicted, band and cost, on real traces.

Run as ``python -m tests.benchmarks.forecast``. The horizon is counted from the end of an interval to the end of the one
that is forecast; ``over`` is what sizing on the upper quantile costs above the truth.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from planner.core.forecast import registry
from planner.core.forecast.band import Band
from tests.shared_data import find_shared

TRACES = (
    "traces/mooncake_fast25_conversation.jsonl.gz",
    "traces/azure2023_conv.csv.gz",
    "traces/servegen_m_large_36h_x0.02.csv.gz",
    "traces/aibrix_8min_up_and_down.csv.gz",
)
MODELS = ("constant", "blend", "ewma", "holt", "kalman", "ewma+log1p", "ewma+day", "holt+day")
LEVEL = 0.9


def arrivals_s(path: Path) -> Iterator[float]:
    """Arrival times of a trace, in seconds."""
    with gzip.open(path, "rt") as lines:
        if path.name.endswith(".jsonl.gz"):
            yield from (json.loads(line)["timestamp"] / 1000.0 for line in lines)
        else:
            yield from (float(row["timestamp_ms"]) / 1000.0 for row in csv.DictReader(lines))


def rates(path: Path, bin_s: float) -> list[float]:
    """Requests a second in each bin; the last, unfinished one is left out."""
    counts: dict[int, int] = {}
    for at in arrivals_s(path):
        counts[int(at // bin_s)] = counts.get(int(at // bin_s), 0) + 1
    return [counts.get(i, 0) / bin_s for i in range(max(counts))]


def score(name: str, series: Sequence[float], bin_s: float, steps: int) -> dict[str, float]:
    """One model on one series, ``steps`` bins ahead."""
    band: Band = registry.make(name, LEVEL, steps * bin_s, {})
    asked: dict[int, tuple[float, float]] = {}
    error = total = upper_over = 0.0
    under = above = judged = 0
    spent = 0.0
    for i, y in enumerate(series):
        if i in asked:
            mean, upper = asked.pop(i)
            error, total, judged = error + abs(y - mean), total + y, judged + 1
            under, above = under + (y > mean), above + (y > upper)
            upper_over += max(0.0, upper - y)
        started = time.process_time()
        band = band.observe((i + 1) * bin_s, y)
        forecast = band.forecast(steps * bin_s)
        spent += time.process_time() - started
        asked[i + steps] = (forecast.mean, forecast.upper)
    return {
        "wmape": error / total,
        "under": under / judged,
        "above": above / judged,
        "over": upper_over / total,
        "us": spent / len(series) * 1e6,
    }


def main() -> int:
    """Print one table per trace, bin and horizon; 0 where any trace was found."""
    found = [(name, path) for name in TRACES if (path := find_shared(name)) is not None]
    if not found:
        print("no traces beside this checkout: nothing to measure")
        return 1
    for name, path in found:
        for bin_s in (30.0, 60.0):
            series = rates(path, bin_s)
            for steps in (1, 3):
                print(f"\n{Path(name).name}: {len(series)} bins of {bin_s:.0f} s, {steps * bin_s:.0f} s ahead")
                print(f"{'model':12} {'wMAPE':>7} {'under':>7} {'above p90':>9} {'over p90':>8} {'us':>6}")
                for model in MODELS:
                    s = score(model, series, bin_s, steps)
                    print(
                        f"{model:12} {s['wmape']:7.1%} {s['under']:7.1%} {s['above']:9.1%}"
                        f" {s['over']:8.1%} {s['us']:6.1f}"
                    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
