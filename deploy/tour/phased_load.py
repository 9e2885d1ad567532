"""The requests of one phase of a tour: endless, at its rate and with its prompt lengths."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from planner.domain.request import Request
from planner.sim.workload.generated import generated

LONGEST_PROMPT_TOKENS = 12_000
"""A longer prompt would take a large part of a worker's KV cache for itself."""


@dataclass(frozen=True, slots=True)
class LoadPhase:
    """Requests per second of load time, and how many times as long as the published ones their prompts are."""

    requests_per_s: float
    prompt_factor: float = 1.0

    def requests(self, seed: int, began_s: float) -> Iterator[Request]:
        """Requests that arrive after ``began_s``."""
        for one in generated(seed, requests_per_s=self.requests_per_s, wave=0.0):
            isl = min(LONGEST_PROMPT_TOKENS, round(one.isl * self.prompt_factor))
            yield Request(began_s + one.t_s, isl, one.osl)
