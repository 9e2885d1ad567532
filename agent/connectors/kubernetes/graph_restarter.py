"""Carries restart commands of one deployment out on its graph, and reports their phases in acknowledgements.

Decides nothing: the core says what to write and what to report; this loop reads, writes and waits.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from nats.errors import Error as NatsError

from agent.adapters.kubernetes.api import ApiError
from agent.connectors.kubernetes.cluster_client import ClusterClient
from agent.connectors.kubernetes.pool_watch import PoolWatch
from agent.connectors.kubernetes.scaling_events import ScalingEvents
from agent.connectors.scaling_channel import ScalingChannel
from agent.connectors.subject_feed import SubjectFeed
from agent.core.scaling.kubernetes.graph_restart import RestartCommand, RestartPhase, RestartReport, next_restart
from bus_schemas.errors import BusAwayError
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import last
from bus_schemas.v1 import DeploymentControl, PlanRecord, RestartProgress

log = logging.getLogger(__name__)
CHECK_S = 5.0
OFF = "this connector restarts no graphs: set restart_graphs: true there"


class GraphRestarter:
    """One deployment. Runs until cancelled. ``changed``: set by its watch. ``allowed``: whether it may restart."""

    def __init__(
        self,
        cluster: ClusterClient,
        bus: Bus,
        channel: ScalingChannel,
        watch: PoolWatch,
        events: ScalingEvents,
        changed: asyncio.Event,
        *,
        allowed: bool,
    ) -> None:
        self._cluster, self._bus, self._channel, self._watch = cluster, bus, channel, watch
        self._events, self._changed, self._allowed = events, changed, allowed
        self._feed = SubjectFeed(bus, bus.subjects.control_deployment(channel.deployment), self._take)
        self._order: RestartCommand | None = None
        self._trouble = ""
        """Why commands wait now, which is logged once."""
        self._wrote_over = ""
        """The version of the graph that we wrote over, until the watch shows a newer one."""

    async def run(self) -> None:
        """Carry commands out until cancelled."""
        await self._channel.started.wait()
        while True:
            self._changed.clear()
            try:
                await self._follow()
                await self._step()
                self._trouble = ""
            except (BusAwayError, NatsError, OSError) as error:
                if self._trouble != str(error):
                    self._trouble = str(error)
                    log.warning("restart commands wait for the bus: %s", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(CHECK_S):
                    await self._changed.wait()

    async def _follow(self) -> None:
        if await self._feed.subscribe() and self._order is None and self._channel.restart is not None:
            # Another command came while no connector ran. The restart of the last report is followed to its end.
            self._order = RestartCommand(self._channel.restart.restart_id, known=False)

    def _take(self, message: object) -> None:
        if isinstance(message, DeploymentControl) and message.restart is not None:
            order = message.restart
            self._order = RestartCommand(order.restart_id, order.strategy == "parallel", order.order)
            self._changed.set()

    async def _step(self) -> None:
        order, known = self._order, self._channel.restart
        reported = None if known is None else _report_of(known)
        if order is None or (reported and reported.restart_id == order.restart_id and reported.phase.final):
            return
        report = await self._next(order, reported)
        await self._channel.report_restart(
            RestartProgress(
                restart_id=report.restart_id,
                phase=report.phase.value,
                in_progress=report.in_progress,
                reason=report.reason,
            )
        )

    async def _next(self, order: RestartCommand, reported: RestartReport | None) -> RestartReport:
        if not self._allowed:
            return RestartReport(order.restart_id, RestartPhase.REJECTED, (), OFF)
        graphs = self._watch.graphs()
        if unknown := self._watch.unknown:
            return RestartReport(order.restart_id, RestartPhase.WAITING, (), f"the cluster is not known now: {unknown}")
        if len(graphs) != 1:
            words = f"the deployment has {len(graphs)} graphs: only one that has a single graph can be restarted"
            return RestartReport(order.restart_id, RestartPhase.REJECTED, (), words)
        (target, graph), *_ = graphs.items()
        if graph is None:
            return RestartReport(order.restart_id, RestartPhase.WAITING, (), f"there is no graph {target.name}")
        if graph.restart.version == self._wrote_over and reported is not None:
            return reported
        body, report = next_restart(order, graph.restart, reported, budgeted=await self._budgeted())
        if body is not None:
            try:
                await self._cluster.restart(target, body, graph.restart.version)
            except ApiError as error:
                words = f"spec.restart is not written: {error}"
                return RestartReport(order.restart_id, RestartPhase.WAITING, (), words)
            self._wrote_over = graph.restart.version
            log.info("%s: restart %s", target, order.restart_id)
        if report.phase in (RestartPhase.FAILED, RestartPhase.SUPERSEDED, RestartPhase.REJECTED):
            words = f"restart {report.restart_id} is {report.phase}{': ' if report.reason else ''}{report.reason}"
            kind = "DynamoGraphDeployment"
            await self._events.warn(target, {"kind": kind, **graph.item}, words, reason="RestartNotDone")
        return report

    async def _budgeted(self) -> bool:
        """Whether the newest plan has a power budget. Without any plan there is none."""
        found = await last(self._bus, self._bus.subjects.telemetry_plan(self._channel.deployment))
        return found is not None and isinstance(found.message, PlanRecord) and found.message.budget_watts is not None


def _report_of(progress: RestartProgress) -> RestartReport:
    phase = RestartPhase(progress.phase)
    return RestartReport(progress.restart_id, phase, progress.in_progress, progress.reason)
