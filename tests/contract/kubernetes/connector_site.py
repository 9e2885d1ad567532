"""A bus, an API server, and the connector as a process of its own with an account of few rights."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable, keep
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.watch import follow
from tests.contract.bus import bench, until
from tests.contract.kubernetes.api_server import ApiServer, Rule
from tests.free_ports import free_port
from tests.kubeconfig_file import kubeconfig

READ = "list,watch"
SECOND_WRITERS = "wattscale_connector_second_writer_pools"
GENERAL: tuple[Rule, ...] = (
    ("", "pods", READ),
    ("", "events", "create"),
    ("autoscaling", "horizontalpodautoscalers", READ),
)
ADAPTER_RULES: tuple[Rule, ...] = (
    *GENERAL,
    ("nvidia.com", "dynamographdeploymentscalingadapters,dynamographdeployments", READ),
    ("nvidia.com", "dynamographdeploymentscalingadapters/scale", "patch"),
)
WORKLOAD_RULES: tuple[Rule, ...] = (
    *GENERAL,
    ("apps", "deployments", READ),
    ("apps", "deployments/scale", "patch"),
)


class ConnectorSite:
    """Publishes decisions of one deployment, and reads acknowledgements and Events.

    ``api_url``: where the connector finds the API server.
    """

    def __init__(self, bus: Bus, url: str, server: ApiServer, folder: Path, *, nats_pid: int = 0) -> None:
        self.bus, self.url, self.server, self.folder = bus, url, server, folder
        self.nats_pid = nats_pid
        self.deployment = "prod"
        self._received: dict[str, list[v1.ScalingAck]] = {}
        self.api_url = server.api.access.server
        self.port = 0
        """Of the pages of the connector that was started last."""

    def of(self, deployment: str) -> ConnectorSite:
        """The same site for another deployment."""
        found = ConnectorSite(self.bus, self.url, self.server, self.folder)
        found.deployment, found.api_url, found._received = deployment, self.api_url, self._received
        return found

    async def receive(self) -> None:
        """Collect the acknowledgements of all deployments until cancelled: to read all of them each time costs much."""
        async for one in follow(self.bus, self.bus.subjects.all_of("ack", "scaling"), 0):
            if isinstance(one.message, v1.ScalingAck):
                self._received.setdefault(one.message.deployment, []).append(one.message)

    async def decide(self, number: int, **replicas: int) -> None:
        """A decision for these pools."""
        pools = {name: v1.PoolTarget(role="decode", replicas=count) for name, count in replicas.items()}
        decision = v1.ScalingDecision(
            time=datetime.now(UTC),
            deployment=self.deployment,
            decision_id=number,
            incarnation="one",
            epoch=1,
            pools=pools,
        )
        await publish(
            self.bus, self.bus.subjects.decision_scaling(self.deployment), decision, f"{self.deployment}-{number}"
        )

    def acks(self) -> list[v1.ScalingAck]:
        """All acknowledgements so far, the oldest first."""
        return list(self._received.get(self.deployment, ()))

    async def acked(self, number: int, holds: Callable[[v1.ScalingAck], bool], what: str) -> v1.ScalingAck:
        """Wait for an acknowledgement of a decision."""

        def found() -> v1.ScalingAck | None:
            return next((one for one in self.acks() if one.decision_id == number and holds(one)), None)

        try:
            ack = await until(found, f"decision {number} of {self.deployment}: {what}")
        except AssertionError as error:
            last = [f"{one.decision_id} {one.status} {one.phase} {one.reason}" for one in self.acks()[-3:]]
            raise AssertionError(f"{error}; the last acknowledgements: {last}") from error
        assert ack is not None
        return ack

    async def done(self, number: int, phase: str = "") -> v1.ScalingAck:
        """Wait until a decision is applied, in this phase or any."""
        return await self.acked(
            number, lambda one: one.status == "applied" and phase in ("", one.phase), f"applied {phase}"
        )

    async def problem(self, number: int, *words: str) -> v1.ScalingAck:
        """Wait for an acknowledgement whose reason has these words."""
        return await self.acked(number, lambda one: all(word in one.reason for word in words), f"reason with {words}")

    async def event(self, name: str, *words: str) -> None:
        """Wait for an Event on an object of this name."""

        async def found() -> bool:
            listed = await self.server.api.get(self.server.path("", "v1", "events"))
            texts = [one["message"] for one in listed["items"] if one["involvedObject"]["name"] == name]
            return any(all(word in text for word in words) for text in texts)

        await until(found, f"an Event on {name} with {words}")

    async def second_writers(self, **pools: int) -> None:
        """Wait until the connector's metrics count these pools by the kind of their second writer, and no others."""
        wanted = {kind: float(pools.get(kind, 0)) for kind in ("autoscaler", "person", "other")}

        async def counted() -> bool:
            async with ClientSession() as session, session.get(f"http://127.0.0.1:{self.port}/metrics") as answer:
                families = list(text_string_to_metric_families(await answer.text()))
            samples = [one for family in families for one in family.samples if one.name == SECOND_WRITERS]
            return {one.labels["writer"]: one.value for one in samples} == wanted

        await until(counted, f"second writers {wanted}")

    async def report_gpus(self, number: int, node: str, holders: Sequence[tuple[str, str, str]]) -> None:
        """A node's telemetry: one GPU for each (pod, deployment, pool)."""
        gpus = tuple(
            v1.GpuTelemetry(
                gpu=f"GPU-{index}",
                default_watts=700.0,
                min_watts=200.0,
                max_watts=700.0,
                pod=f"{self.server.namespace}/{pod}" if pod else "",
                deployment=deployment,
                pool=pool,
            )
            for index, (pod, deployment, pool) in enumerate(holders)
        )
        message = v1.NodeTelemetry(time=datetime.now(UTC), node=node, gpus=gpus)
        await publish(self.bus, self.bus.subjects.telemetry_node(node), message, f"{node}-{number}")

    def kubeconfig(self, token: str) -> Path:
        """A file for an account."""
        return kubeconfig(self.folder / f"kubeconfig-{token[-12:]}", self.api_url, token, self.server.namespace)

    @asynccontextmanager
    async def connector(
        self, token: str, *arguments: str, settings: dict[str, Any] | None = None, stderr: int | None = None
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """The process, ended by SIGTERM; with ``settings`` instead of this deployment. Its log is shown on failure."""
        if settings is None:
            about: tuple[str, ...] = ("--deployment", self.deployment, "--namespace", self.server.namespace)
        else:
            file = self.folder / "connector.yaml"
            file.write_text(json.dumps({"namespace": self.server.namespace, **settings}))
            about = ("--settings", str(file))
        self.port = free_port()
        command = (
            *("-m", "deploy.cli.main", "connector", "kubernetes", *about),
            *("--kubeconfig", str(self.kubeconfig(token)), "--nats-url", self.url),
            *("--host", "127.0.0.1", "--port", str(self.port)),
        )
        # A killed connector's claim is short here, so that the next one begins soon.
        environment = {**os.environ, "WATTSCALE_CONNECTOR_CLAIM_TTL_S": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, *arguments, env=environment, stderr=stderr
        )
        try:
            yield process
            if process.returncode is None:
                process.terminate()
                assert await asyncio.wait_for(process.wait(), 60) == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def connector_site(
    server: ApiServer, folder: Path, deployments: Sequence[str] = ("prod",)
) -> AsyncIterator[ConnectorSite]:
    """The bus with the consumers of these deployments, beside a server."""
    async with bench(folder / "bus") as (nats, bus):
        keeper = asyncio.create_task(keep(bus, lambda: [Durable.scaling(bus, one) for one in deployments], 0.5))
        site = ConnectorSite(bus, nats.url, server, folder, nats_pid=nats.pid)
        receiver = asyncio.create_task(site.receive())
        try:
            yield site
        finally:
            keeper.cancel()
            receiver.cancel()
            await asyncio.gather(keeper, receiver, return_exceptions=True)
