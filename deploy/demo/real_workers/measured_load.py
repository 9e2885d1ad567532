"""The load on real workers: `wattscale load`'s client, and its figures so far in bounded memory."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from deploy.load.load_client import LoadClient, LoadTarget
from deploy.load.outcomes import RequestOutcome, summary
from planner.domain.request import Request

TIMEOUT_S = 600.0
MOST_IN_FLIGHT = 5000
REMEMBERED = 20_000
"""Requests whose times are kept: percentiles are those of the newest."""
LATE_S = 1.0


class MeasuredLoad:
    """Requests to one address, sent at their times, and what became of them."""

    def __init__(self, url: str, model: str, ttft_ms: float, itl_ms: float) -> None:
        self._client = LoadClient(
            LoadTarget(url, model, chat=False, key="", timeout_s=TIMEOUT_S, max_in_flight=MOST_IN_FLIGHT)
        )
        self._ttft_ms, self._itl_ms = ttft_ms, itl_ms
        self._newest: deque[RequestOutcome] = deque(maxlen=REMEMBERED)
        self._good = self._tokens = 0
        self._failed: Counter[str] = Counter()

    async def run(self, requests: Iterable[Request]) -> None:
        """Send all of them, and wait for their answers."""
        await self._client.run(requests)

    def totals(self) -> dict[str, Any]:
        """Requests sent, those within both targets, those that failed by reason, tokens, and times in milliseconds."""
        self._fold()
        times = summary(self._newest, 0.0, self._ttft_ms, self._itl_ms)
        return {
            "requests": self._client.sent,
            "good_requests": self._good,
            "failed_requests": dict(self._failed),
            "in_flight_requests": self._client.in_flight,
            "output_tokens": self._tokens,
            "ttft_ms": times["ttft_ms"],
            "itl_ms": times["itl_ms"],
        }

    def late_s(self) -> float:
        """How late the newest request was sent, where that is long enough to spoil the figures; else 0."""
        self._fold()
        late_s = self._newest[-1].late_s if self._newest else 0.0
        return late_s if late_s > LATE_S else 0.0

    def _fold(self) -> None:
        # Emptied and not replaced: requests in flight hold on to this list.
        new = list(self._client.outcomes)
        self._client.outcomes.clear()
        for one in new:
            self._good += one.good(self._ttft_ms / 1000, self._itl_ms / 1000)
            self._tokens += one.tokens
            if one.failure:
                self._failed[one.failure] += 1
        self._newest += new
