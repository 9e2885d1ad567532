"""The smallest static fleet with a share of good requests: a clairvoyant's flat fleet, found by replaying fleets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

LARGEST_FLEET = 48
Measured = Mapping[str, Any]
Fleet = tuple[int, int]
Replayed = Callable[[int, int], dict[str, Any]]
"""The scores of a fleet of so many prefill and decode workers."""


def smallest(replayed: Replayed, share: float, gpus: Fleet, near: Fleet = (1, 1)) -> dict[str, Any] | None:
    """The one that reaches ``share`` on the fewest GPUs; None where none of ``LARGEST_FLEET`` workers was found."""
    *_, last = on_the_way(replayed, share, gpus, near)
    return last if last["good_share"] >= share else None


def on_the_way(replayed: Replayed, share: float, gpus: Fleet, near: Fleet = (1, 1)) -> Iterator[dict[str, Any]]:
    """Fleets on the way to it, that one last.

    Climbs from ``near`` by the larger miss: a decode worker where decode loses requests, else a prefill worker; then
    takes workers away again, those of the most GPUs first, as long as the share is reached. ``gpus`` and ``near`` are
    of prefill and decode. A fleet that is much too small takes long to replay.
    """
    at = near
    seen: dict[Fleet, dict[str, Any]] = {}

    def measured(fleet: Fleet) -> dict[str, Any]:
        seen[fleet] = replayed(*fleet)
        return seen[fleet]

    while (found := measured(at))["good_share"] < share and sum(at) < LARGEST_FLEET:
        misses = found["misses"]
        more_decode = misses["decode"] >= misses["queue"] or _waits_for_decode(found)
        at = (at[0], at[1] + 1) if more_decode else (at[0] + 1, at[1])
    fewer = found["good_share"] >= share
    while fewer:
        one_less = sorted(((at[0] - 1, at[1]), (at[0], at[1] - 1)), key=lambda n: n[0] * gpus[0] + n[1] * gpus[1])
        enough = (fleet for fleet in one_less if min(fleet) >= 1 and measured(fleet)["good_share"] >= share)
        smaller = next(enough, None)
        at, fewer = smaller or at, smaller is not None
    best = seen.pop(at)
    yield from seen.values()
    yield best


def _waits_for_decode(found: Measured) -> bool:
    """Prompts that wait for room in a decode cache are late at first token, and many of them are slow too."""
    return bool(found["misses"]["decode"] > 0.2 * max(1, found["misses"]["queue"]))
