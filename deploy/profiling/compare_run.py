"""`wattscale profile --compare A B`: reads two profiles and prints one table."""

from __future__ import annotations

from pathlib import Path

from deploy.cli.errors import UsageError
from planner.adapters.profiles import ProfileError, load_profile
from planner.profiler.results.profile_comparison import comparison_lines


def run_compare(first: Path, second: Path) -> int:
    """Print the table and return the exit code 0. Raises UsageError for a folder without a profile."""
    try:
        table = comparison_lines(load_profile(first), load_profile(second))
    except (ProfileError, ValueError) as error:
        raise UsageError(f"--compare: {error}") from error
    for line in table:
        print(line)
    return 0
