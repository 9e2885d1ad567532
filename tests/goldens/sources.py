"""All sources of goldens."""

from __future__ import annotations

from tests.goldens import corpus, days, proof
from tests.goldens.shown import PLAN_PARTS
from tests.goldens.source import Source

SOURCES = (
    *(Source(f"day-{name}", PLAN_PARTS, day) for name, day in days.DAYS.items()),
    Source("corpus", corpus.PARTS, corpus.lines),
    Source("proof", proof.PARTS, proof.lines),
)
