"""One run of `wattscale load`: from its options to its figures and exit code."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploy.cli.errors import UsageError
from deploy.event_loop import run as on_event_loop
from deploy.load.load_client import LoadClient, LoadTarget
from deploy.load.outcomes import as_lines, summary
from deploy.load.schedule import bounded, poisson
from planner.adapters.traces import TraceError, read_trace
from planner.domain.request import Request

PROGRESS_S = 5.0
INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of one run. With a ``trace`` its own times and lengths count; else rate, isl and osl."""

    target: LoadTarget
    rate_per_s: float
    isl: int
    osl: int
    trace: Path | None
    speed: float
    requests: int | None
    duration_s: float | None
    ttft_ms: float
    itl_ms: float
    min_good: float | None
    seed: int
    json: bool


def run_load(options: LoadOptions) -> int:
    """Run, print the figures, and return the exit code: 0, 1 where a request failed or too few were good, or 130."""
    requests = bounded(_requests(options), options.requests, options.duration_s)
    client = LoadClient(options.target)
    began_s = time.monotonic()
    interrupted = on_event_loop(_run(client, requests))
    figures = summary(client.outcomes, time.monotonic() - began_s, options.ttft_ms, options.itl_ms)
    print(json.dumps(figures, indent=2) if options.json else as_lines(figures))
    if interrupted:
        return INTERRUPTED
    too_few = options.min_good is not None and (figures["good_share"] or 0.0) < options.min_good
    return 1 if figures["failed"] or not figures["completed"] or too_few else 0


def _requests(options: LoadOptions) -> Iterator[Request]:
    if options.trace is None:
        return poisson(options.rate_per_s, options.isl, options.osl, options.seed)
    try:
        return iter(read_trace(options.trace).at_rate(options.speed))
    except TraceError as error:
        raise UsageError(str(error)) from error


async def _run(client: LoadClient, requests: Iterator[Request]) -> bool:
    """Whether the run was interrupted; requests in flight are then left."""
    loop = asyncio.get_running_loop()
    running = asyncio.create_task(client.run(requests))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, running.cancel)
    began_s = loop.time()
    while not running.done():
        await asyncio.wait([running], timeout=PROGRESS_S)
        if not running.done():
            done, flying = len(client.outcomes), client.in_flight
            print(
                f"{loop.time() - began_s:.0f} s: {client.sent} sent, {done} ended, {flying} in flight", file=sys.stderr
            )
    with contextlib.suppress(asyncio.CancelledError):
        await running
    return running.cancelled()
