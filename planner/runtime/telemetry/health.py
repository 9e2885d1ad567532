"""The planner's HTTP server: ``/livez``, ``/readyz``, ``/metrics``, ``/status``. Answers from memory only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web

from planner.domain.ids import DeploymentId
from planner.domain.plan import DeploymentPlan
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.telemetry.liveness import Liveness

log = logging.getLogger(__name__)

LAST_PAGES_S = 1.0
Handler = Callable[[web.Request], Awaitable[web.Response]]


class HealthServer:
    """Serves one planner's health on ``host:port`` (0: a free port; ``url`` has it).

    Live: the loop turned within ``live_within_s`` and, while leading, ticks come. Ready: live,
    the bus answers, and a planner may lead over it.
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
    ) -> None:
        self._vitals = vitals
        self._connected = connected
        self._metrics = metrics
        self._host, self._port = host, port
        self._tick_within_s = max(live_within_s, 4.0 * interval_s)
        self._live_within_s = live_within_s
        self._clock = clock
        self._newest: DecisionEvent | None = None
        self._plans: dict[DeploymentId, DeploymentPlan] = {}
        self.url = ""
        self.serving = asyncio.Event()
        """Set once ``url`` can be reached."""

    def watch(self, decided: DecisionEvent) -> None:
        """Keep the newest decision for the status page."""
        self._newest = decided
        self._plans.update(decided.plan.deployments)

    async def run(self) -> None:
        """Until cancelled."""
        app = web.Application()
        routes: dict[str, Handler] = {
            "/livez": self._livez,
            "/readyz": self._readyz,
            "/metrics": self._show_metrics,
            "/status": self._status,
        }
        for path, handler in routes.items():
            app.router.add_get(path, handler)
        # A client that does not read its page is not waited for, which the library would do for a minute.
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=LAST_PAGES_S)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
            host, port = runner.addresses[0][:2]
            self.url = f"http://{host}:{port}"
            self.serving.set()
            log.info("health and metrics on %s", self.url)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()

    def problems(self) -> list[str]:
        """Why this process is not live; empty when it is."""
        vitals = self._vitals
        found = []
        if vitals.beat_age_s > self._live_within_s:
            found.append(f"the loop has not turned for {vitals.beat_age_s:.1f} s")
        if vitals.epoch is not None:
            last_s = max(vitals.last_tick_s or 0.0, vitals.led_since_s or 0.0)
            age_s = self._clock() - last_s
            if age_s > self._tick_within_s:
                found.append(f"leading without a tick for {age_s:.1f} s")
        return found

    def _hindrances(self) -> list[str]:
        """Why this process could not lead if no other did."""
        return [f"not leading: {self._vitals.hindrance}"] if self._vitals.hindrance else []

    async def _livez(self, _: web.Request) -> web.Response:
        return _answer(self.problems())

    async def _readyz(self, _: web.Request) -> web.Response:
        away = [] if self._connected() else ["no connection to the bus"]
        return _answer(self.problems() + away + self._hindrances())

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _status(self, _: web.Request) -> web.Response:
        vitals, newest = self._vitals, self._newest
        sites = {name: asdict(site) for name, site in newest.plan.sites.items()} if newest else {}
        return web.json_response(
            {
                "leading": vitals.epoch is not None,
                "epoch": vitals.epoch,
                "ticks": vitals.ticks,
                "reactions": vitals.reactions,
                "last_tick_s": vitals.last_tick_s,
                "bus_connected": self._connected(),
                "problems": self.problems() + self._hindrances(),
                "sites": sites,
                "deployments": {name: asdict(plan) for name, plan in self._plans.items()},
            }
        )


def _answer(problems: list[str]) -> web.Response:
    if problems:
        return web.Response(status=503, text="\n".join(problems) + "\n")
    return web.Response(text="ok\n")
