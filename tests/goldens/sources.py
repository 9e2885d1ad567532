"""All sources of goldens."""

from __future__ import annotations

from tests.goldens import corpus, days, proof
from tests.goldens.shown import PLAN_PARTS
from tests.goldens.source import GoldenSource

SOURCES = (
    *(GoldenSource(f"day-{name}", PLAN_PARTS, day) for name, day in days.DAYS.items()),
    GoldenSource("corpus", corpus.PARTS, corpus.lines),
    GoldenSource("proof", proof.PARTS, proof.lines),
)
