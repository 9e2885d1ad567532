"""Plots of speed by power cap: each phase's points with the fitted law, and what the law leaves over.

Needs matplotlib, which is imported when a plot is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from planner.core.power.curve import speed
from planner.profiler.analysis.power_law import PowerFit
from planner.profiler.results.plot_file import png
from planner.profiler.results.profile_files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CAP = "power cap (W/GPU)"
SPEED = "speed, relative to the highest cap"
STEPS = 120


def write_power_plots(folder: Path, fits: Sequence[PowerFit]) -> tuple[Path, ...]:
    """Write the plots. Returns the files; none without fits. Raises OSError, and ImportError without matplotlib."""
    if not fits:
        return ()
    return (
        write_whole(folder / "power_speed.png", png(lambda axes: _speeds(axes, fits))),
        write_whole(folder / "power_residuals.png", png(lambda axes: _residuals(axes, fits))),
    )


def _speeds(axes: Axes, fits: Sequence[PowerFit]) -> None:
    for number, fit in enumerate(fits):
        colour = f"C{number % 10}"
        axes.scatter([one.cap_watts for one in fit.points], [one.speed for one in fit.points], s=12, color=colour)
        caps = [one.cap_watts for one in fit.points]
        label = fit.label
        if fit.curve is None:
            axes.plot([], [], color=colour, linestyle=":", label=f"{label}: no curve")
            continue
        least, most = min(caps), max(caps)
        grid = [least + (most - least) * step / STEPS for step in range(STEPS + 1)]
        full = speed(fit.curve, round(most * 1000))
        axes.plot(grid, [speed(fit.curve, round(cap * 1000)) / full for cap in grid], color=colour, label=label)
    axes.set(title="Speed by power cap", xlabel=CAP, ylabel=SPEED)
    axes.set_ylim(bottom=0)


def _residuals(axes: Axes, fits: Sequence[PowerFit]) -> None:
    for number, fit in enumerate(fits):
        pairs = [(one.cap_watts, one.speed, fit.predicted(one)) for one in fit.points]
        shown = [(cap, 100 * (found - fitted)) for cap, found, fitted in pairs if fitted is not None]
        if shown:
            axes.scatter(
                [cap for cap, _ in shown], [left for _, left in shown], s=12, color=f"C{number % 10}", label=fit.label
            )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(title="Measured speed less fitted speed", xlabel=CAP, ylabel="difference (% of full speed)")
