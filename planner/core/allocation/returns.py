"""Whether a replica that is no longer wanted is kept: by what its absence would lose, in the gaps of its own load.

A **gap** is the time from when a count was last wanted to when it was again. While a replica is not wanted, each
second of it costs a second of a replica. Given up, it is missing for a start-up time when its load returns, and its
start serves nobody. So it is kept while there is a time within which returns would have lost more than waiting for them
costs, over the past gaps that had lasted as long as this one has. A load that comes back every ten minutes keeps its
replicas; one that stays away, or loses little when it returns, gives them up sooner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from planner.core.allocation.optimiser.shares import PHASES, good, needs
from planner.core.sizing.options import PoolOptions, at_count
from planner.domain.config import STARTS_KEPT, PoolConfig

History = tuple[tuple[float, int], ...]

LONGEST_STARTS = 20.0
"""Start-up times after which a load that has not come back counts as gone."""
GAPS = 64
"""Number of gaps remembered: only the newest, so that a load that changes its pattern is known by the new one."""
AT_ONCE = 4
"""Number of gaps that one instant shows at most, of however many replicas: they all left and came with one load."""
LASTING_PART = 0.5
"""Start-up times over which a recommendation is judged: a count was wanted if half of the ticks in them recommended it.
Ticks of half a minute see one in many of the wishes that last seconds; short ticks would keep a replica for each.
"""
LATE_PART = 0.5
"""Share of a start-up time's requests that are late for a replica that is missing: a queue builds up only with time."""


@dataclass(frozen=True, slots=True)
class LoadGap:
    """A time in which a replica was not wanted.

    ``seconds`` None: the load did not come back. ``lost``: what its return would lose while a replica is missing, for
    each that is: requests, as a multiple of those that one replica serves in that time.
    """

    seconds: float | None
    lost: float = 0.0


GONE = LoadGap(None)
ASSUMED = (*(LoadGap(starts + 1.0, 1.0) for starts in range(int(STARTS_KEPT))), GONE, GONE)
"""Gaps assumed of every load, in start-up times. Until others were seen, replicas are kept for five start-up times at
the default quantile, and the shorter the lower it is."""


@dataclass(frozen=True, slots=True)
class Worth:
    """Why a replica is kept: ``returns`` of ``gaps`` as long as this one came back ``within_s`` from now."""

    returns: int
    gaps: int
    within_s: float


def by_cost(pool: PoolConfig) -> bool:
    """Whether the pool's replicas are kept by what their absence would lose: it has GPUs, and no window was set."""
    return pool.scale_down.stabilization_window_s is None and pool.role in PHASES


def longest_s(pool: PoolConfig) -> float:
    """How long a load may stay away, in seconds, until it counts as gone."""
    return LONGEST_STARTS * _start_s(pool)


def lasting(pool: PoolConfig, recommendations: History) -> tuple[float, int]:
    """The largest count recommended in at least half of the ticks up to the newest, and when: amid those ticks."""
    t_s, newest = recommendations[-1]
    since_s = t_s - LASTING_PART * _start_s(pool)
    recent = list(takewhile(lambda entry: entry[0] > since_s, reversed(recommendations)))
    if len(recent) < 2:
        return t_s, newest
    counts = sorted((count for _, count in recent), reverse=True)
    return (t_s + recent[-1][0]) / 2.0, counts[(len(counts) + 1) // 2 - 1]


def unwanted(past: History, recommended: int, current: int, t_s: float) -> Iterator[tuple[int, float]]:
    """The counts in force above what is recommended, highest first, each with the seconds since it was last wanted."""
    found: list[tuple[int, float]] = []
    highest = recommended
    for at, count in reversed(past):
        if highest >= current:
            break
        if count > highest:
            highest = count
            found.append((min(count, current), t_s - at))
    return reversed(found)


def worth_keeping(pool: PoolConfig, gaps: Sequence[LoadGap], gone_s: float, quantile: float) -> Worth | None:
    """Why a replica that was last wanted ``gone_s`` ago is kept; None where it is not worth it.

    ``quantile``: what is sized for. Sizing at a quantile weighs a late request against ``quantile / (1 - quantile)``
    times the capacity that it needs, and so does this.
    """
    start_s, price = _start_s(pool), LATE_PART * quantile / (1.0 - quantile)
    past = [(gap.seconds, gap.lost) for gap in gaps]
    past += [(None if gap.seconds is None else gap.seconds * start_s, gap.lost) for gap in ASSUMED]
    back = sorted([(seconds, lost) for seconds, lost in past if seconds is not None and seconds > gone_s])
    as_long = len(back) + sum(seconds is None for seconds, _ in past)
    saved_s = waited_s = 0.0
    for returns, (seconds, lost) in enumerate(back, 1):
        saved_s += start_s * (1.0 + price * lost)
        waited_s += seconds - gone_s
        if saved_s > waited_s + (as_long - returns) * (seconds - gone_s):
            return Worth(returns, as_long, seconds - gone_s)
    return None


def learned(
    pool: PoolConfig, gaps: tuple[LoadGap, ...], past: History, t_s: float, count: int, options: PoolOptions | None
) -> tuple[LoadGap, ...]:
    """The gaps after ``count`` was wanted at ``t_s``; ``past`` has what was before it (``lasting``)."""
    if not past or options is None or not by_cost(pool):
        return gaps
    found = (*_closed(pool, past, t_s, count, options), *_gone(pool, past, t_s, count))
    return (*gaps, *found)[-GAPS:] if found else gaps


def _closed(pool: PoolConfig, past: History, t_s: float, count: int, options: PoolOptions) -> Iterator[LoadGap]:
    """The gaps that end now: of the counts that are recommended again."""
    highest = past[-1][1]
    for at, before in reversed(past):
        if highest >= count or t_s - at > longest_s(pool):
            return
        for level in range(highest + 1, min(before, count, highest + AT_ONCE) + 1):
            yield LoadGap(t_s - at, _lost(pool, options, level, count))
        highest = max(highest, before)


def _gone(pool: PoolConfig, past: History, t_s: float, count: int) -> list[LoadGap]:
    """Gaps without a return: of the counts that have been unwanted for too long since the last tick."""
    since_s, until_s = past[-1][0] - longest_s(pool), t_s - longest_s(pool)
    old = takewhile(lambda entry: entry[0] <= until_s, past)
    highest = max((before for at, before in old if at > since_s), default=0)
    if highest <= count:
        return []
    later = max((before for at, before in past if at > until_s), default=0)
    return [GONE] * min(AT_ONCE, highest - max(count, later))


def _lost(pool: PoolConfig, options: PoolOptions, level: int, count: int) -> float:
    """What a load that wants ``count`` loses for each replica missing from ``level`` on, in replicas' worth.

    By the load that arrives, as shares are predicted: a count that only what may come asks for loses next to nothing.
    """
    prompts, answers = needs(pool.role, options.speed, options.arriving, options.prompts)

    def share(replicas: int) -> float:
        return good(1.0, *(at_count(felt, replicas) if felt else 0.0 for felt in (prompts, answers)))

    return max(0.0, count * (share(count) - share(level - 1)) / (count - level + 1))


def _start_s(pool: PoolConfig) -> float:
    """The start-up time; where there is none, what the default window assumes."""
    return pool.down_window_s / STARTS_KEPT
