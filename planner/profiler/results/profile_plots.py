"""Plots of a run: throughput per GPU against TTFT and against ITL, as in the guide, and draw against throughput.

Needs matplotlib, which is imported when a plot is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planner.profiler.analysis.profiled import Profiled
from planner.profiler.analysis.recommendation import Targets
from planner.profiler.analysis.tables import PointRow
from planner.profiler.results.plot_file import png
from planner.profiler.results.profile_files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RATE = "throughput (tokens/s/GPU)"


def write_plots(folder: Path, profiled: Profiled, targets: Targets) -> tuple[Path, ...]:
    """Write the plots. Returns the files. Raises OSError, and ImportError without matplotlib."""
    prefill = [row for row in profiled.table if row.point.phase == "prefill"]
    decode = [row for row in profiled.table if row.point.phase == "decode"]
    drawings: dict[str, Callable[[Axes], None]] = {
        "prefill_performance.png": lambda axes: _prefill(axes, prefill, targets),
        "decode_performance.png": lambda axes: _decode(axes, decode, targets),
    }
    if any(row.watts is not None for row in profiled.table):
        drawings["power_prefill.png"] = lambda axes: _power(axes, prefill, "prefill")
        drawings["power_decode.png"] = lambda axes: _power(axes, decode, "decode")
    return tuple(write_whole(folder / name, png(draw)) for name, draw in drawings.items())


def _prefill(axes: Axes, table: Sequence[PointRow], targets: Targets) -> None:
    for tp in _tps(table):
        mine = sorted((row for row in table if row.point.tp == tp), key=lambda row: row.context)
        axes.plot(
            [row.time.value for row in mine], [row.tokens_per_s_per_gpu for row in mine], marker="o", label=f"TP {tp}"
        )
        for row in mine:
            axes.annotate(f"isl {row.context:.0f}", (row.time.value, row.tokens_per_s_per_gpu), fontsize="x-small")
    axes.axvline(targets.ttft_ms, linestyle="--", color="tab:red", label=f"target {targets.ttft_ms:g} ms")
    axes.set(title="Prefill: one request at a time", xlabel="TTFT (ms)", ylabel=RATE)


def _decode(axes: Axes, table: Sequence[PointRow], targets: Targets) -> None:
    for tp in _tps(table):
        for context in sorted({row.context for row in table if row.point.tp == tp}):
            mine = [row for row in table if row.point.tp == tp and row.context == context]
            mine.sort(key=lambda row: row.point.in_flight)
            axes.plot(
                [row.time.value for row in mine],
                [row.tokens_per_s_per_gpu for row in mine],
                marker="o",
                label=f"TP {tp}, context {context:.0f}",
            )
    axes.axvline(targets.itl_ms, linestyle="--", color="tab:red", label=f"target {targets.itl_ms:g} ms")
    axes.set(title="Decode: from one request to a full KV cache", xlabel="ITL (ms)", ylabel=RATE)


def _power(axes: Axes, table: Sequence[PointRow], phase: str) -> None:
    for tp in _tps(table):
        mine = [(row.tokens_per_s_per_gpu, row.watts / tp) for row in table if row.point.tp == tp and row.watts]
        axes.scatter([rate for rate, _ in mine], [watts for _, watts in mine], label=f"TP {tp}")
    axes.set(title=f"Draw while a {phase} point was measured", xlabel=RATE, ylabel="draw (W/GPU)")
    axes.set_ylim(bottom=0)


def _tps(table: Iterable[PointRow]) -> list[int]:
    return sorted({row.point.tp for row in table})
