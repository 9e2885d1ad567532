"""The simulated GPUs of all nodes, served over a Unix socket to agents that are processes of their own.

What a driver is on a real node. It outlives every agent, so that limits stay as they are when an agent is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from aiohttp import web

from agent.ports import DriverError
from deploy.demo.gpus import PlantDriver, PlantOwners


class GpuRack:
    """Use as an async context manager. ``socket``: a path in a folder that only this user may enter.

    ``nodes``: the GPUs of each node, and whose work runs on them.
    """

    def __init__(self, socket: Path, nodes: Mapping[str, tuple[PlantDriver, PlantOwners]]) -> None:
        self._socket, self._nodes = socket, nodes
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> GpuRack:
        app = web.Application()
        app.router.add_get("/{node}/gpus", self._gpus)
        app.router.add_get("/{node}/owners", self._owned)
        app.router.add_get("/{node}/gpus/{gpu}", self._reading)
        app.router.add_put("/{node}/gpus/{gpu}/limit/{mw}", self._limit)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self._socket)).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _node(self, request: web.Request) -> tuple[PlantDriver, PlantOwners]:
        try:
            return self._nodes[request.match_info["node"]]
        except KeyError:
            raise web.HTTPNotFound from None

    async def _gpus(self, request: web.Request) -> web.Response:
        driver, _ = self._node(request)
        return web.json_response([asdict(one) for one in driver.enumerate()])

    async def _owned(self, request: web.Request) -> web.Response:
        _, owners = self._node(request)
        return web.json_response({gpu: asdict(owner) for gpu, owner in (await owners.owners()).items()})

    async def _reading(self, request: web.Request) -> web.Response:
        driver, _ = self._node(request)
        try:
            return web.json_response(asdict(driver.read(request.match_info["gpu"])))
        except DriverError:
            raise web.HTTPNotFound from None

    async def _limit(self, request: web.Request) -> web.Response:
        driver, _ = self._node(request)
        try:
            driver.set_limit(request.match_info["gpu"], int(request.match_info["mw"]))
        except (DriverError, ValueError):
            raise web.HTTPNotFound from None
        return web.Response()
