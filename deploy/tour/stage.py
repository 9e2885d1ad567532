"""What the steps of a tour act on, and how they wait for what they caused."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from deploy.cli.errors import CliError
from deploy.demo.prepare import Prepared
from deploy.installed_files import own_module
from deploy.report.bus_entries import entries
from deploy.report.usage import Period
from deploy.report.watts import watts
from deploy.tour.children import Children
from deploy.tour.part_process import PartOrder
from deploy.tour.phased_load import LoadPhase
from deploy.tour.step_figures import StepFigures, in_time
from deploy.tour.tour_view import TourView
from deploy.views.live_view import DemoStatus, plain_line
from planner.sim.live_cluster import LiveCluster

POLL_S = 0.05
LINE_S = 5.0
LONGEST_WAIT_S = 120.0
LONGEST_WAIT_LOAD_S = 1800.0
"""More than the windows that keep replicas from being taken away, and the start of a worker."""


@dataclass(slots=True)
class TourStage:
    """``order``: how planners and agents are started."""

    run: Prepared
    bus: Bus
    url: str
    watched: TourView
    cluster: LiveCluster
    children: Children
    order: PartOrder
    print_line: Callable[[str], None]
    began_s: float
    phases: int = 0

    @property
    def deployment(self) -> str:
        return self.run.options.deployment

    @property
    def site(self) -> str:
        return self.run.options.site

    def phase(self, requests_per_s: float, prompt_factor: float = 1.0) -> None:
        """Let other requests arrive."""
        self.phases += 1
        phase = LoadPhase(requests_per_s, prompt_factor)
        self.cluster.submit(phase.requests(self.phases, self.cluster.load_s()))

    async def until(self, holds: Callable[[], bool], what: str) -> float:
        """Wait for what a step causes, with the state of the site every few seconds. Returns the seconds waited.

        Raises CliError with ``what`` where it does not come.
        """
        speed = self.run.options.speed
        limit_s = max(LONGEST_WAIT_S, LONGEST_WAIT_LOAD_S / speed)
        began_s = shown_s = time.monotonic()
        while not holds():
            now_s = time.monotonic()
            if now_s - began_s > limit_s:
                raise CliError(
                    f"{what}: did not happen within {limit_s:.0f} s; this machine may be too busy: --speed 5"
                )
            if now_s - shown_s >= LINE_S:
                shown_s = now_s
                self.print_line("    … " + plain_line(self.watched.picture, self._status()))
            await asyncio.sleep(POLL_S)
        return time.monotonic() - began_s

    def _status(self) -> DemoStatus:
        return DemoStatus("", "", self.cluster.load_s(), time.monotonic() - self.began_s)

    async def measured(self, count: int, since: datetime) -> None:
        """Wait for that many ticks that measured a share of good requests after ``since``."""
        await self.until(
            lambda: (
                sum(any(share.measured is not None for share in one.good.values()) for one in self._since(since))
                >= count
            ),
            "a measurement of the requests",
        )

    def _since(self, since: datetime) -> list[v1.PlanRecord]:
        return self.watched.records_since(since)

    async def scaled(self, wanted: Callable[[v1.ScalingDecision], bool], what: str, after: int) -> v1.ScalingDecision:
        """Wait for a decision that is ``wanted`` with an id above ``after``, and until it is carried out."""

        def found() -> v1.ScalingDecision | None:
            newer = (one for one in self.watched.decisions if one.decision_id > after)
            return next((one for one in newer if wanted(one)), None)

        await self.until(lambda: found() is not None, what)
        decision = found()
        assert decision is not None  # noqa: S101 - just found, and decisions are never dropped
        await self.until(lambda: self.watched.carried_out(decision), f"decision #{decision.decision_id} carried out")
        return decision

    def newest_decision(self) -> v1.ScalingDecision | None:
        """The newest decision about replicas."""
        return self.watched.decisions[-1] if self.watched.decisions else None

    async def figures(self, since: datetime) -> StepFigures:
        """What happened after ``since``, read from the streams of the bus. Raises BusAwayError."""
        found = await entries(self.bus, Period(since, datetime.now(UTC)))
        within = [one for one in found if one.stored_at >= since]
        records = [one.message for one in within if isinstance(one.message, v1.PlanRecord)]
        decisions = [one.message for one in within if isinstance(one.message, v1.ScalingDecision)]
        requests, shares = in_time(records)
        sites = [one for one in watts(found, Period(since, datetime.now(UTC))) if one.site == self.site]
        return StepFigures(
            decisions=tuple((one, self.watched.answers.get((one.deployment, one.decision_id))) for one in decisions),
            requests=requests,
            in_time=shares,
            site=sites[0] if sites else None,
            drawn_watts=self.watched.picture.drawn_watts,
        )

    # -- processes

    async def start_planner(self, name: str) -> str:
        """Start a planner. Returns the name by which it leads."""
        return await self.children.start(replace(self.order, name=name))

    async def start_agent(self, node: str) -> str:
        """Start the power agent of a node. Returns its name."""
        return await self.children.start(replace(self.order, name=f"agent-{node}", node=node))

    async def command(self, *words: str) -> str:
        """Run `wattscale WORDS` on this bus. Returns what it printed. Raises CliError with its last line."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WATTSCALE_NATS_")}
        process = await asyncio.create_subprocess_exec(
            *(*own_module("deploy.cli.main"), *words, "--nats-url", self.url),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        try:
            out, err = await process.communicate()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)
        if process.returncode != 0:
            last = (err.decode().splitlines() or ["no word"])[-1]
            raise CliError(f"wattscale {' '.join(words)}: exit code {process.returncode}: {last}")
        return out.decode()
