"""The planner's HTTP server: ``/livez``, ``/readyz``, ``/metrics``, ``/status``. Answers from memory only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from planner.domain.ids import DeploymentId, SiteId
from planner.domain.plan import DeploymentPlan, SitePlan
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.telemetry.bus_watch import BusWatch
from planner.runtime.telemetry.http_listener import MAX_CONNECTIONS, REQUEST_S, HttpListener
from planner.runtime.telemetry.liveness import Liveness

log = logging.getLogger(__name__)

NODE_TERM_S = 15.0
"""Seconds without a report after which a node is silent, where no site sets another time."""
Handler = Callable[[web.Request], Awaitable[web.Response]]


class HealthServer:
    """Serves one planner's health on ``host:port`` (0: a free port; ``url`` has it).

    Live: the loop turned within ``live_within_s`` and, while leading, ticks come. Ready: live, the bus answers, a
    planner may lead over it, and what else the process serves can be reached. ``trouble``: why there is no connection.
    ``unserved``: what cannot be reached yet; empty for nothing. ``node_term_s``: seconds without a report after which a
    node is silent.
    """

    def __init__(
        self,
        vitals: Liveness,
        connected: Callable[[], bool],
        metrics: Callable[[], bytes],
        *,
        host: str,
        port: int,
        interval_s: float,
        live_within_s: float,
        clock: Callable[[], float],
        bus_watch: BusWatch | None = None,
        trouble: Callable[[], str] = str,
        unserved: Callable[[], str] = str,
        node_term_s: float = NODE_TERM_S,
        request_s: float = REQUEST_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self._vitals = vitals
        self._connected = connected
        self._metrics = metrics
        self._host, self._port = host, port
        self._request_s, self._max_connections = request_s, max_connections
        self._term_s = max(live_within_s, 4.0 * interval_s)
        self._live_within_s = live_within_s
        self._clock = clock
        self._bus_watch = bus_watch
        self._trouble = trouble
        self._unserved = unserved
        self._node_term_s = node_term_s
        self._plans: dict[DeploymentId, tuple[float, DeploymentPlan]] = {}
        self._sites: dict[SiteId, tuple[float, SitePlan]] = {}
        self.url = ""
        self.serving = asyncio.Event()
        """Set once ``url`` can be reached."""

    def watch(self, decided: DecisionEvent) -> None:
        """Keep the newest decisions for the status page."""
        self._sites.update({name: (decided.now_s, site) for name, site in decided.plan.sites.items()})
        self._plans.update({name: (decided.now_s, plan) for name, plan in decided.plan.deployments.items()})

    async def run(self) -> None:
        """Serve until cancelled. Raises OSError where the address cannot be bound."""
        app = web.Application()
        routes: dict[str, Handler] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._show_metrics,
            "/status": self._status,
        }
        for path, handler in routes.items():
            app.router.add_get(path, handler)
        listener = HttpListener(app, request_s=self._request_s, max_connections=self._max_connections)
        try:
            self.url = await listener.start(self._host, self._port)
            self.serving.set()
            log.info("health and metrics on %s", self.url)
            await asyncio.Event().wait()
        finally:
            await listener.close()

    def problems(self) -> list[str]:
        """Why this process is not live; empty when it is."""
        vitals = self._vitals
        found = []
        if vitals.beat_age_s > self._live_within_s:
            found.append(f"the planner's loop has not run for {vitals.beat_age_s:.1f} s")
        if vitals.epoch is not None:
            last_s = max(vitals.last_tick_s or 0.0, vitals.led_since_s or 0.0)
            age_s = self._clock() - last_s
            if age_s > self._term_s:
                found.append(f"leading without a tick for {age_s:.1f} s")
        return found

    def _hindrances(self) -> list[str]:
        """Why this process could not decide if no other did."""
        found = []
        if not self._connected():
            trouble = self._trouble()
            found.append("no connection to the bus" + (f": {trouble}" if trouble else ""))
        if self._vitals.hindrance:
            found.append(f"not leading: {self._vitals.hindrance}")
        return found

    async def _livez(self, _: web.Request) -> web.Response:
        return _answer(self.problems())

    async def _readyz(self, _: web.Request) -> web.Response:
        unserved = self._unserved()
        waits = [f"not served yet: {unserved}"] if unserved else []
        return _answer(self.problems() + self._hindrances() + waits)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response(self.status())

    def status(self) -> dict[str, Any]:
        """This process' view as JSON values, with the age of everything.

        Values that no longer hold are only listed with their age: plans of a planner that does not lead any more, or
        whose ticks have stopped.
        """
        vitals, now_s = self._vitals, self._clock()
        around = self._bus_watch.problems() if self._bus_watch else ()
        nodes = self._bus_watch.ages_s() if self._bus_watch else {}
        current = {name: plan for name, (at_s, plan) in self._plans.items() if self._is_current(at_s)}
        return {
            "time": datetime.now(UTC).isoformat(),
            "leading": vitals.epoch is not None,
            "leader": vitals.leader or None,
            "epoch": vitals.epoch,
            "ticks": vitals.ticks,
            "reactions": vitals.reactions,
            "last_tick_s": vitals.last_tick_s,
            "last_tick_age_s": _age(vitals.last_tick_s, now_s),
            "tick_term_s": self._term_s,
            "bus_connected": self._connected(),
            "problems": list(dict.fromkeys([*self.problems(), *self._hindrances(), *(one.text for one in around)])),
            "nodes": {name: {"age_s": round(s, 3), "silent": s > self._node_term_s} for name, s in nodes.items()},
            "silent_nodes": [name for name, age_s in nodes.items() if age_s > self._node_term_s],
            "sites": {
                name: {"age_s": _age(at_s, now_s), **asdict(site)}
                for name, (at_s, site) in self._sites.items()
                if self._is_current(at_s)
            },
            "deployments": {
                name: {"age_s": _age(self._plans[name][0], now_s), **asdict(plan)} for name, plan in current.items()
            },
            "older_than_term_s": {
                name: _age(at_s, now_s) for name, (at_s, _) in self._plans.items() if name not in current
            },
        }

    def _is_current(self, at_s: float) -> bool:
        """Whether a decision of that time still holds: made in this term, and no older than a tick may be."""
        vitals = self._vitals
        return vitals.epoch is not None and at_s >= (vitals.led_since_s or 0.0) and self._clock() - at_s <= self._term_s


def _age(at_s: float | None, now_s: float) -> float | None:
    return None if at_s is None else round(max(0.0, now_s - at_s), 3)


def _answer(problems: list[str]) -> web.Response:
    if problems:
        return web.Response(status=503, text="\n".join(problems) + "\n")
    return web.Response(text="ok\n")
