"""One run of `wattscale up`, from the first check to the summary; leaves no process and no open port behind."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from bus_schemas.jetstream.connect import Bus
from bus_schemas.visible_text import visible_handler
from deploy.compose.planner_service import Planner
from deploy.demo.demo_site import DemoSite, PlantSite, running
from deploy.demo.ending import RunEnd
from deploy.demo.last_run import LastRun, forget, remember
from deploy.demo.options import UpOptions
from deploy.demo.parts import bus_server, furnish, keep_furnished, keep_server, reach
from deploy.demo.prepare import Prepared, prepare
from deploy.demo.show import show
from deploy.demo.summary import as_text, summary_of
from deploy.event_loop import run as on_event_loop
from deploy.views.bus_reader import watching
from deploy.views.freshness import problems
from deploy.views.live_view import DemoStatus
from deploy.views.site_view import SiteView

SETTLE_LIMIT_S = 60.0
HASTY_SETTLE_S = 0.8
"""After an interrupt."""
POLL_S = 0.05


def run_up(options: UpOptions) -> int:
    """Run, print the summary, and return the exit code. Raises UsageError with nothing left running."""
    logging.basicConfig(level=logging.ERROR, handlers=[visible_handler("%(levelname)s %(name)s: %(message)s")])
    end = on_event_loop(_up(prepare(options)))
    end.in_order()
    print(end.report)
    return 0


async def _up(run: Prepared) -> RunEnd:
    end = RunEnd()
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(bus_server(run, end.removals))
        url = server.url if server else run.options.nats_url or ""
        bus = await _connected(stack, run, url, "wattscale-up")
        await furnish(bus, run)
        await stack.enter_async_context(running(*keep_furnished(bus, run)))
        if server:
            await stack.enter_async_context(running(keep_server(server, _print)))
        site = _site_of(run)
        await stack.enter_async_context(site.opened(end.removals))
        picture = SiteView()
        await stack.enter_async_context(running(*watching(bus, picture.add).values()))
        title = f"wattscale up: {run.options.nodes} nodes, {run.options.gpu}, {run.budget_watts:.0f} W, bus {url}"
        if site.address:
            title += f", requests to {site.address}"
        look = f"nats sub 'wattscale.v1.>' -s {url}   or   wattscale status"
        pages: list[str] = []
        options = run.options
        remember(LastRun(url, bus.subjects.prefix, os.getpid(), options.site, options.deployment))
        stack.callback(forget, os.getpid())
        end.removals.append(lambda: forget(os.getpid()))
        began_s = time.monotonic()
        for node in run.nodes:
            agent = site.make_agent(await _connected(stack, run, url, f"agent-{node}"), node)
            await stack.enter_async_context(running(agent.run()))
        connector = site.carry_out(await _connected(stack, run, url, "connector"), url)
        await stack.enter_async_context(running(connector))

        def status() -> DemoStatus:
            unwell = (*problems(picture, datetime.now(UTC)), *site.problems())
            hint = f"from outside: {'   or   '.join([*pages[:1], look])}"
            return DemoStatus(title, hint, site.load_s(), time.monotonic() - began_s, unwell)

        async with _planners(run, stack, url, site, pages), running(show(picture, status, quiet=options.json)):
            await _until_end(run, site, end.stop)
            end.report = _report(run, site, picture)
        await _carried_out(picture, options.deployment, end)
        end.report = _report(run, site, picture)
        return end


def _site_of(run: Prepared) -> DemoSite:
    if not run.options.real_workers:
        return PlantSite(run)
    # A simulated run needs none of what starts processes.
    from deploy.demo.real_workers.real_site import RealSite

    return RealSite(run)


def _report(run: Prepared, site: DemoSite, picture: SiteView) -> str:
    summary = summary_of(run, site.totals(), site.meter, picture)
    return json.dumps(summary, indent=2) if run.options.json else as_text(summary)


@asynccontextmanager
async def _planners(
    run: Prepared, stack: AsyncExitStack, url: str, site: DemoSite, pages: list[str]
) -> AsyncIterator[None]:
    """Run the planners; ``pages`` receives the address of each one's dashboard."""
    async with AsyncExitStack() as planners:
        for index in range(run.options.planners):
            name = f"planner-{index}"
            planner = site.make_planner(await _connected(stack, run, url, name), f"{name}-{os.getpid()}")
            await planners.enter_async_context(running(planner.run()))
            if planner.dashboard is not None:
                await planner.dashboard.serving.wait()
                pages.append(planner.dashboard.url)
            page = f", dashboard on {pages[-1]}" if pages else ""
            _print(f"{name}: health and metrics on {await _address(planner)}{page}")
        yield


async def _address(planner: Planner) -> str:
    """Where the planner's pages are, once they are served."""
    if planner.health is None:
        return "no port"
    await planner.health.serving.wait()
    return planner.health.url


async def _connected(stack: AsyncExitStack, run: Prepared, url: str, name: str) -> Bus:
    bus = await reach(run, url, name)
    stack.push_async_callback(bus.close)
    return bus


async def _until_end(run: Prepared, site: DemoSite, stop: asyncio.Event) -> None:
    """Wait for a signal, the end of the duration, or the last request of a trace."""
    waits = [asyncio.create_task(stop.wait()), asyncio.create_task(site.finished.wait())]
    try:
        await asyncio.wait(waits, timeout=run.options.duration_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _carried_out(picture: SiteView, deployment: str, end: RunEnd) -> None:
    """Let the connector finish the last decision while the cluster runs on; after an interrupt only for a moment."""
    deadline = time.monotonic() + SETTLE_LIMIT_S
    announced = False
    while time.monotonic() < deadline and end.in_haste_s < HASTY_SETTLE_S:
        view = picture.deployments.get(deployment)
        if view is None or view.scaled_decision_id >= view.decision_id:
            return
        if not announced and not end.in_haste_s:
            _print("waiting for the last scaling decision to be carried out; an interrupt ends it")
            announced = True
        await asyncio.sleep(POLL_S)


def _print(text: str) -> None:
    print(text, file=sys.stderr)
