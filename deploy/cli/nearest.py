"""The known name that is closest to a mistyped one."""

from __future__ import annotations

from collections.abc import Iterable

CLOSE_ENOUGH = 0.5
LISTED = 8


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is close to ``name``; None where none is."""
    from difflib import get_close_matches

    close = get_close_matches(name, sorted(known), n=1, cutoff=CLOSE_ENOUGH)
    return close[0] if close else None


def hint(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` where a known name is close; otherwise the known names, or that there are none."""
    names = sorted(known)
    if close := nearest(name, names):
        return f"did you mean {close!r}?"
    if not names:
        return "none is known there"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"known: {', '.join(names[:LISTED])}{more}"
