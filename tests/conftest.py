"""What all tests share: no stray event loop, and no examples that fail because of the clock.

On Python 3.11 the first call for "the" event loop creates one. pytest-asyncio makes it and never closes the loop,
which the collector then finds in the middle of a later test. Setting the loop to None once prevents that.

Hypothesis fails an example that takes 200 ms, as any may on a busy machine. With CI set it has no such deadline and
draws the same examples each time; elsewhere it draws new ones, and the other settings are made here.
"""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, settings

settings.register_profile(
    "any machine",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")


def pytest_configure() -> None:
    asyncio.set_event_loop(None)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests measured (``record_property("measured", line)``): they assert no duration."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    lines = [
        value
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "measured"
    ]
    if lines:
        terminalreporter.section("measured")
    for line in lines:
        terminalreporter.write_line(line)
