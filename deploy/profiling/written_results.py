"""What every run of `wattscale profile` ends with: its files, its plots, its recommendation on the screen."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.cli.errors import CliError, UsageError
from planner.profiler.analysis.power_law import PowerFit
from planner.profiler.analysis.profiled import Profiled
from planner.profiler.analysis.recommendation import Targets, lines
from planner.profiler.results.power_curve_file import power_notes, write_power_curve
from planner.profiler.results.power_plots import write_power_plots
from planner.profiler.results.profile_files import write_profile
from planner.profiler.results.profile_plots import write_plots
from planner.profiler.results.profile_report import ReportContent, write_report


def make_folder(folder: Path) -> None:
    """Make the folder of --output-dir. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output-dir {folder}: {error.strerror or error}") from error


@dataclass(frozen=True, slots=True)
class PowerResults:
    """What a run under caps has shown, and the type of its GPUs."""

    fits: tuple[PowerFit, ...]
    gpu: str


def write_results(
    folder: Path,
    profiled: Profiled,
    targets: Targets,
    source: Mapping[str, Any],
    notes: Iterable[str],
    power: PowerResults | None = None,
) -> None:
    """Write all files and print the recommendation; ``notes`` go to standard error. Raises CliError."""
    fits = () if power is None else power.fits
    lines_of_notes = (*notes, *power_notes(fits))
    plots: tuple[Path, ...] = ()
    try:
        write_profile(folder, profiled, targets, source)
        if power is not None:
            write_power_curve(folder, fits, power.gpu)
        try:
            plots = (*write_plots(folder, profiled, targets), *write_power_plots(folder, fits))
        except ImportError:
            print("note: no plots: they need matplotlib; pip install 'wattscale[profile]'", file=sys.stderr)
        write_report(folder, ReportContent(profiled, targets, fits, source, lines_of_notes, plots))
    except OSError as error:
        raise CliError(f"--output-dir {folder}: cannot be written: {error.strerror or error}") from error
    for line in lines(profiled.recommendation, targets):
        print(line)
    for line in lines_of_notes:
        print(f"note: {line}", file=sys.stderr)
    print(f"profile written to {folder}")
