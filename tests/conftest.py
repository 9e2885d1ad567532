"""What all tests share: no event loop of nobody's, and no examples that fail by the clock.

On Python 3.11 the first look for "the" event loop makes one, which pytest-asyncio's look does and nobody ever closes;
the collector finds it in the middle of some later test. Saying once that there is none ends that.

Hypothesis fails an example that takes 200 ms, which on a busy machine any may. With CI set it does not, nor draws by
chance; elsewhere it draws afresh each time, and is told the rest here.
"""

from __future__ import annotations

import asyncio

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
