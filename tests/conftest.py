"""What all tests share: no stray event loop, and no examples that fail because of the clock.

On Python 3.11 the first call for "the" event loop creates one. pytest-asyncio makes it and never closes the loop,
which the collector then finds in the middle of a later test. Setting the loop to None once prevents that.

Hypothesis fails an example that takes 200 ms, as any may on a busy machine. With CI set it has no such deadline and
draws the same examples each time; elsewhere it draws new ones, and the other settings are made here.

Tests that take longest start first, so that short ones fill the workers' last minutes. With `--cov`, only tests are
measured that new lines can be expected of: measuring makes what computes for seconds two to three times as dear.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "any machine",
    settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")

HERE = Path(__file__).parent
UNMEASURED = [HERE / room for room in ("goldens", "property/agent", "property/planner", "simulation")]
"""They run what unit tests have run already, over and over."""
IN_CHILDREN = "COVERAGE_PROCESS_CONFIG"
"""Where coverage finds, in a process that a test starts, what to measure."""


def pytest_configure() -> None:
    asyncio.set_event_loop(None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of the run."""
    items.sort(key=_most_s, reverse=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Run a test, measured or not, with all that it starts."""
    repeats = item.get_closest_marker("unmeasured") or any(room in item.path.parents for room in UNMEASURED)
    if (repeats or _long(item)) and item.config.pluginmanager.hasplugin("_cov"):
        with _unmeasured():
            return (yield)
    return (yield)


@contextmanager
def _unmeasured() -> Iterator[None]:
    """No coverage of this process, of its new threads, and of processes that it starts."""
    here, in_threads, in_children = sys.gettrace(), threading.gettrace(), os.environ.pop(IN_CHILDREN, None)
    sys.settrace(None)
    threading.settrace(None)
    try:
        yield
    finally:
        sys.settrace(here)
        threading.settrace(in_threads)
        if in_children is not None:
            os.environ[IN_CHILDREN] = in_children


def _long(item: pytest.Item) -> bool:
    return any(item.get_closest_marker(name) for name in ("long", "nightly"))


def _most_s(item: pytest.Item) -> float:
    """How long a long test may take; 0 for others, which keep their order."""
    limit = item.get_closest_marker("timeout")
    return float(limit.args[0] if limit else item.config.getini("timeout")) if _long(item) else 0.0


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
