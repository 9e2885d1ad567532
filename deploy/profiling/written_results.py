"""What every run of `wattscale profile` ends with: its files, its plots, its recommendation on the screen."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from deploy.cli.errors import CliError, UsageError
from planner.profiler.analysis.profiled import Profiled
from planner.profiler.analysis.recommendation import Targets, lines
from planner.profiler.results.profile_files import write_profile
from planner.profiler.results.profile_plots import write_plots


def make_folder(folder: Path) -> None:
    """Make the folder of --output-dir. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output-dir {folder}: {error.strerror or error}") from error


def write_results(
    folder: Path, profiled: Profiled, targets: Targets, source: Mapping[str, Any], notes: Iterable[str]
) -> None:
    """Write all files and print the recommendation; ``notes`` go to standard error. Raises CliError."""
    try:
        write_profile(folder, profiled, targets, source)
        try:
            write_plots(folder, profiled, targets)
        except ImportError:
            print("note: no plots: they need matplotlib; pip install 'wattscale[profile]'", file=sys.stderr)
    except OSError as error:
        raise CliError(f"--output-dir {folder}: cannot be written: {error.strerror or error}") from error
    for line in lines(profiled.recommendation, targets):
        print(line)
    for line in notes:
        print(f"note: {line}", file=sys.stderr)
    print(f"profile written to {folder}")
