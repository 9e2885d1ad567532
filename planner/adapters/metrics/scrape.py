"""Reads a deployment's metrics straight from its frontends' and workers' ``/metrics``: no Prometheus needed.

Keeps the last good page of each URL and takes differences. Must never let one unreachable page pass for less
load: while any page is missing, what is summed over pages is missing.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import aiohttp

from planner.adapters.metrics.exposition import (
    MetricsPage,
    PageError,
    histogram_increase,
    increase,
    parse_page,
    restarted,
    total_increase,
)
from planner.adapters.metrics.histogram import IntervalHistogram
from planner.adapters.metrics.metric_table import ENGINES, MetricTable
from planner.adapters.metrics.series_selector import SeriesSelector
from planner.adapters.metrics.snapshot import GaugeMeans, GaugeSample, Snapshot
from planner.adapters.metrics.snapshot_observer import SnapshotObserver
from planner.domain.reading import Missing, MissingReason, Reading


@dataclasses.dataclass(frozen=True, slots=True)
class _Fetched:
    """All pages of one reading, and when."""

    now_s: float
    pages: Mapping[str, MetricsPage]


class EngineScraper(SnapshotObserver):
    """One deployment's readings from one or more metrics pages.

    ``load_time_scale``: load seconds per clock second (accelerated replays); intervals are in load seconds.
    ``pull_s``: real seconds between further readings of queues and KV use, for their means over the interval; None:
    none. ``max_gap_s``: clock seconds after which the last pages are too old to take a difference from.
    """

    def __init__(
        self,
        urls: str | Sequence[str],
        selector: SeriesSelector,
        *,
        load_time_scale: float = 1.0,
        timeout_s: float = 5.0,
        max_gap_s: float = 600.0,
        pull_s: float | None = None,
        table: MetricTable = ENGINES,
    ) -> None:
        super().__init__(selector, table)
        self._urls = (urls,) if isinstance(urls, str) else tuple(urls)
        self._scale = load_time_scale
        self._timeout_s = timeout_s
        self._max_gap_s = max_gap_s
        self._session: aiohttp.ClientSession | None = None
        self._last: _Fetched | None = None
        self._pull_s = pull_s
        self._means = GaugeMeans()
        self._pulling: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.gather(self._pulling, return_exceptions=True)
            self._pulling = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _snapshot(self, now_s: float) -> Snapshot:
        if self._pull_s is not None and self._pulling is None:
            self._pulling = asyncio.create_task(self._pull(self._pull_s), name=f"pull {self.deployment}")
        fetched = await self._fetch()
        before = self._last
        interval_s = self._interval_s(before, now_s, fetched)
        if len(fetched) < len(self._urls):
            return Snapshot(interval_s, failure=Missing(MissingReason.UNREACHABLE))
        self._last = _Fetched(now_s, fetched)
        found = _differences(before, fetched, interval_s, self._table, stale=self._is_stale(before, now_s))
        if self._pull_s is None:
            return found
        self._means.add(self._averaged(found.gauges))
        return dataclasses.replace(found, means=self._means.take())

    async def _fetch(self) -> dict[str, MetricsPage]:
        """The pages that answered."""
        pages = await asyncio.gather(*(self._page(url) for url in self._urls))
        return {url: page for url, page in zip(self._urls, pages, strict=True) if page is not None}

    async def _pull(self, every_s: float) -> None:
        """Read gauges between two observations. A failed reading is missing from the means; it does not count as 0."""
        while True:
            await asyncio.sleep(every_s)
            self._means.add(self._averaged(_gauges((await self._fetch()).values())))

    def _averaged(self, gauges: Mapping[str, tuple[GaugeSample, ...]]) -> Mapping[str, tuple[GaugeSample, ...]]:
        return {name: samples for name, samples in gauges.items() if name in self._table.averaged}

    def _is_stale(self, before: _Fetched | None, now_s: float) -> bool:
        return before is not None and now_s - before.now_s > self._max_gap_s

    def _interval_s(self, before: _Fetched | None, now_s: float, pages: Mapping[str, MetricsPage]) -> float:
        """Load seconds since the last pages: by the load's own clock where a page shows one."""
        if before is None:
            return 0.0
        for url, page in pages.items():
            earlier = before.pages[url].load_s if url in before.pages else None
            if page.load_s is not None and earlier is not None and page.load_s > earlier:
                return page.load_s - earlier
        return (now_s - before.now_s) * self._scale

    async def _page(self, url: str) -> MetricsPage | None:
        try:
            async with self._open().get(url) as response:
                response.raise_for_status()
                text = await response.text(errors="replace")
            return await asyncio.to_thread(parse_page, text, self._selector, self._table)
        except (aiohttp.ClientError, TimeoutError, OSError, PageError) as error:
            self.last_error = f"{url}: {type(error).__name__}: {error}"
            return None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._timeout_s)
            self._session = aiohttp.ClientSession(timeout=timeout)
        return self._session


def _differences(
    before: _Fetched | None, pages: Mapping[str, MetricsPage], interval_s: float, table: MetricTable, *, stale: bool
) -> Snapshot:
    gauges = _gauges(pages.values())
    why = _no_difference(before, pages, stale=stale)
    exported = {name for page in pages.values() for name in page.cumulative}
    counters = exported & table.counters
    histograms = {base for base in table.histograms if f"{base}_count" in exported}
    if before is None or why is not None:
        missing = why or Missing(MissingReason.FIRST_SCRAPE)
        return Snapshot(interval_s, dict.fromkeys(counters, missing), dict.fromkeys(histograms, missing), gauges)
    pairs = [(before.pages[url], page) for url, page in pages.items()]
    increases: dict[str, Reading] = {}
    for name in counters:
        total = total_increase([increase(name, old, new) for old, new in pairs])
        if total is not None:
            increases[name] = total
    sums: dict[str, IntervalHistogram | Missing] = {}
    for name in histograms:
        merged = _merge(histogram_increase(name, old, new) for old, new in pairs)
        if merged is not None:
            sums[name] = merged
    return Snapshot(interval_s, increases, sums, gauges)


def _no_difference(before: _Fetched | None, pages: Mapping[str, MetricsPage], *, stale: bool) -> Missing | None:
    if before is None:
        return Missing(MissingReason.FIRST_SCRAPE)
    if stale:
        return Missing(MissingReason.STALE)
    if any(restarted(before.pages[url], page) for url, page in pages.items()):
        return Missing(MissingReason.COUNTER_RESET)
    return None


def _gauges(pages: Iterable[MetricsPage]) -> Mapping[str, tuple[GaugeSample, ...]]:
    gauges: dict[str, tuple[GaugeSample, ...]] = {}
    for page in pages:
        for name, samples in page.gauges.items():
            gauges[name] = (*gauges.get(name, ()), *samples)
    return gauges


def _merge(parts: Iterable[IntervalHistogram | Missing | None]) -> IntervalHistogram | Missing | None:
    merged: IntervalHistogram | None = None
    for part in parts:
        if isinstance(part, Missing):
            return part
        if part is not None:
            merged = part if merged is None else merged.plus(part)
    return merged
