"""How often Python looks for cycles in a process that holds a large site.

Messages, reports and states are values that make no cycles and go when the last one who holds them lets go. To look for
cycles among those of 10,000 GPUs took a tenth of a core of a planner, a quarter while its page was open, in
pauses of a third of a second each.
"""

from __future__ import annotations

import gc

COLLECT_AFTER = 100_000
"""Objects that were made and not let go: some 20 MB if all of them were in cycles."""


def collect_seldom() -> None:
    """What was imported lives as long as the process, and what comes is looked at after `COLLECT_AFTER` objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 10, 10)
