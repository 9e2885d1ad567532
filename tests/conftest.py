"""What all tests share: no event loop of nobody's.

On Python 3.11 the first look for "the" event loop makes one, which pytest-asyncio's look does and nobody ever closes;
the collector finds it in the middle of some later test. Saying once that there is none ends that.
"""

from __future__ import annotations

import asyncio


def pytest_configure() -> None:
    asyncio.set_event_loop(None)
