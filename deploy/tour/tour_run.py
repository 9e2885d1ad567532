"""One run of `wattscale tour`, from the first check to the last figure; leaves no process and no file behind."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from bus_schemas.jetstream.tasks.task_group import ended, run_together
from bus_schemas.visible_text import visible_handler
from deploy.cli.errors import CliError, UsageError
from deploy.demo.ending import INTERRUPTED, RunEnd
from deploy.demo.last_run import LastRun, forget, remember
from deploy.demo.options import UpOptions
from deploy.demo.parts import (
    bus_server,
    furnish,
    keep_connector,
    keep_furnished,
    keep_server,
    make_cluster,
    node_gpus,
    reach,
)
from deploy.demo.prepare import prepare
from deploy.event_loop import run as on_event_loop
from deploy.report.bus_entries import entries
from deploy.report.period_report import report
from deploy.report.tables import headline
from deploy.report.usage import Period, Prices
from deploy.tour.children import Children
from deploy.tour.gpu_rack import GpuRack
from deploy.tour.part_process import PartOrder
from deploy.tour.stage import TourStage
from deploy.tour.steps import PLANNERS, STEPS, TourStep
from deploy.tour.tour_view import TourView
from deploy.views.bus_reader import watching

NODES, GPUS_PER_NODE = 2, 6
WATCH_S = 0.2


@dataclass(frozen=True, slots=True)
class TourOptions:
    """``only``: names of steps, beside the baseline, which the others compare with; empty: all."""

    yes: bool = False
    speed: float = 10.0
    only: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[TourStep, ...]:
        """The steps to walk, in order."""
        return tuple(one for one in STEPS if not self.only or one.name in (STEPS[0].name, *self.only))


def run_tour(options: TourOptions) -> int:
    """Walk, and return the exit code: 0, or 130 where it was interrupted. Raises CliError with nothing left running."""
    if not options.yes and not sys.stdin.isatty():
        raise UsageError("the tour waits for Enter at each step, and standard input is no terminal: add --yes")
    logging.basicConfig(level=logging.ERROR, handlers=[visible_handler("%(levelname)s %(name)s: %(message)s")])
    end, code = on_event_loop(_interruptible(options))
    end.in_order()
    return code


async def _interruptible(options: TourOptions) -> tuple[RunEnd, int]:
    end = RunEnd()
    walking, stopping = asyncio.create_task(_walk(options, end)), asyncio.create_task(end.stop.wait())
    await asyncio.wait([walking, stopping], return_when=asyncio.FIRST_COMPLETED)
    interrupted = not walking.done()
    await ended(walking, stopping)
    if interrupted:
        return end, INTERRUPTED
    walking.result()
    return end, 0


async def _walk(options: TourOptions, end: RunEnd) -> None:
    made = prepare(UpOptions(nodes=NODES, gpus_per_node=GPUS_PER_NODE, speed=options.speed))
    # No request before the first step: its processes take as long to start as minutes of load.
    run = replace(made, requests=())
    async with AsyncExitStack() as stack:
        scratch = Path(mkdtemp(prefix="wattscale-tour-"))
        stack.callback(shutil.rmtree, scratch, ignore_errors=True)
        end.removals.append(lambda: shutil.rmtree(scratch, ignore_errors=True))
        server = await stack.enter_async_context(bus_server(run, end.removals))
        assert server is not None  # noqa: S101 - a tour names no other server
        bus = await reach(run, server.url, "wattscale-tour")
        stack.push_async_callback(bus.close)
        await furnish(bus, run)
        cluster, meter = make_cluster(run)
        await stack.enter_async_context(cluster)
        gpus = {node: node_gpus(run, cluster, meter, node) for node in run.nodes}
        socket = scratch / "gpus"
        try:
            await stack.enter_async_context(GpuRack(socket, gpus))
        except OSError as error:
            raise UsageError(f"{socket}: {error}; set TMPDIR to a shorter path") from error
        children = Children(scratch / "parts.log")
        end.removals.insert(0, children.destroy)
        stack.push_async_callback(children.close)
        remember(LastRun(server.url, bus.subjects.prefix, os.getpid(), run.options.site, run.options.deployment))
        stack.callback(forget, os.getpid())
        end.removals.append(lambda: forget(os.getpid()))
        watched, url = TourView(), server.url
        connector = await reach(run, url, "connector")
        stack.push_async_callback(connector.close)
        parts: dict[str, Coroutine[Any, Any, None]] = {
            **watching(bus, watched.add),
            **{f"furnish {index}": one for index, one in enumerate(keep_furnished(bus, run))},
            "server": keep_server(server, _print),
            "connector": keep_connector(run, connector, cluster),
            "children": _watch(children),
        }
        order = PartOrder("", url, cluster.url, str(socket), "", NODES, GPUS_PER_NODE, options.speed)
        stage = TourStage(run, bus, url, watched, cluster, children, order, _print, time.monotonic())
        await _beside(parts, _steps(stage, options))


async def _beside(parts: dict[str, Coroutine[Any, Any, None]], work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` to its end beside ``parts``, of which none may end. Raises their errors."""
    working = asyncio.create_task(work)
    running = asyncio.create_task(run_together(parts))
    try:
        await asyncio.wait([working, running], return_when=asyncio.FIRST_COMPLETED)
        (working if working.done() else running).result()
    except* CliError as errors:
        raise errors.exceptions[0] from None
    finally:
        await ended(working, running)


async def _watch(children: Children) -> None:
    """Raises CliError where a process ends that no step killed."""
    while True:
        await asyncio.sleep(WATCH_S)
        if gone := children.ended_by_themselves():
            raise CliError(f"{gone[0]} ended by itself: {children.words() or 'it left no word'}")


async def _steps(stage: TourStage, options: TourOptions) -> None:
    budget, speed = f"{stage.run.budget_watts:,.0f} W", f"{options.speed:g} seconds of load in one second"
    _print(f"wattscale tour: {NODES} nodes with {GPUS_PER_NODE} simulated H200 each, {budget} for all of them, {speed}")
    _print(f"Bus {stage.url}. Starting its processes …")
    began = datetime.now(UTC)
    planners = [await stage.start_planner(f"planner-{index}") for index in range(PLANNERS)]
    agents = [await stage.start_agent(node) for node in stage.run.nodes]
    await stage.until(lambda: len(stage.children.pages) == PLANNERS, "the planners' pages")
    for name in (*planners, *agents):
        page = stage.children.pages.get(name)
        _print(f"  process {stage.children.pid(name)}: {name}" + (f", dashboard on {page}" if page else ""))
    _print("Look on with `wattscale dashboard`, `wattscale top` or `wattscale status` from a second terminal.")
    for number, step in enumerate(options.steps, 1):
        if not await _step(stage, step, f"{number} of {len(options.steps)}", options):
            break
    found = await entries(stage.bus, period := Period(began, datetime.now(UTC)))
    _print("")
    _print(f"The whole tour: {headline(report(found, period, Prices(), period.until))}")
    _print("The same with evidence, on a site of yours: `wattscale report --since 1h`. Everything is stopped now.")


async def _step(stage: TourStage, step: TourStep, place: str, options: TourOptions) -> bool:
    """Walk one step. False: the reader ends the tour."""
    _print("")
    _print(f"== {place}: {step.title} ({step.name})")
    _print(f"look at: {step.look}")
    for command in step.commands(stage):
        _print(f"command: {command}")
    if not options.yes:
        answer = await _answer("Enter: do it, s: skip it, q: end the tour > ")
        if answer == "q":
            return False
        if answer == "s":
            return True
    since = datetime.now(UTC)
    happened = await step.act(stage)
    figures = await stage.figures(since)
    for line in (*happened, *figures.lines()):
        _print(f"  - {line}")
    return True


async def _answer(question: str) -> str:
    """The first letter of what is typed, in lower case; the end of input ends the tour."""
    loop = asyncio.get_running_loop()
    print(question, end="", flush=True)
    typed: asyncio.Future[None] = loop.create_future()

    def ready() -> None:
        if not typed.done():
            typed.set_result(None)

    loop.add_reader(sys.stdin.fileno(), ready)
    try:
        await typed
    finally:
        loop.remove_reader(sys.stdin.fileno())
    line = sys.stdin.readline()
    return line.strip().lower()[:1] if line else "q"


def _print(text: str) -> None:
    print(text, flush=True)
