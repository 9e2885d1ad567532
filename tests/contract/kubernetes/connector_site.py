"""A bus, an API server, and the connector as a process of its own with an account of few rights."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable, keep
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import all_messages
from tests.contract.bus import bench, until
from tests.contract.kubernetes.api_server import ApiServer, Rule
from tests.free_ports import free_port

READ = "list,watch"
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
    """Publishes decisions of the deployment ``prod``, and reads acknowledgements and Events."""

    def __init__(self, bus: Bus, url: str, server: ApiServer, folder: Path) -> None:
        self.bus, self.url, self.server, self.folder = bus, url, server, folder

    async def decide(self, number: int, **replicas: int) -> None:
        """A decision for these pools."""
        pools = {name: v1.PoolTarget(role="decode", replicas=count) for name, count in replicas.items()}
        decision = v1.ScalingDecision(
            time=datetime.now(UTC), deployment="prod", decision_id=number, incarnation="one", epoch=1, pools=pools
        )
        await publish(self.bus, self.bus.subjects.decision_scaling("prod"), decision, f"decision-{number}")

    async def acks(self) -> list[v1.ScalingAck]:
        """All acknowledgements, the oldest first."""
        stored = await all_messages(self.bus, self.bus.subjects.ack_scaling("prod"))
        return [one.message for one in stored if isinstance(one.message, v1.ScalingAck)]

    async def acked(self, number: int, holds: Callable[[v1.ScalingAck], bool], what: str) -> v1.ScalingAck:
        """Wait for an acknowledgement of a decision."""

        async def found() -> v1.ScalingAck | None:
            return next((one for one in await self.acks() if one.decision_id == number and holds(one)), None)

        ack = await until(found, f"decision {number}: {what}")
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

    def kubeconfig(self, token: str) -> Path:
        """A file for an account."""
        file = self.folder / f"kubeconfig-{token[-12:]}"
        cluster: dict[str, Any] = {"server": self.server.api.access.server}
        if cluster["server"].startswith("https"):
            cluster["insecure-skip-tls-verify"] = True
        context = {"cluster": "k", "user": "u", "namespace": self.server.namespace}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": context}],
            "clusters": [{"name": "k", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        file.write_text(json.dumps(document))
        return file

    @asynccontextmanager
    async def connector(self, token: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """The process, ended by SIGTERM. Its log is shown where the test fails."""
        command = (
            *("-m", "deploy.cli.main", "connector", "kubernetes", "--deployment", "prod"),
            *("--namespace", self.server.namespace, "--kubeconfig", str(self.kubeconfig(token))),
            *("--nats-url", self.url, "--host", "127.0.0.1", "--port", str(free_port())),
        )
        process = await asyncio.create_subprocess_exec(sys.executable, *command, *arguments)
        try:
            yield process
            if process.returncode is None:
                process.terminate()
                assert await asyncio.wait_for(process.wait(), 40) == 0
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def connector_site(server: ApiServer, folder: Path) -> AsyncIterator[ConnectorSite]:
    """The bus with the connector's consumer, beside a server."""
    async with bench(folder / "bus") as (nats, bus):
        keeper = asyncio.create_task(keep(bus, lambda: [Durable.scaling(bus, "prod")], 0.5))
        try:
            yield ConnectorSite(bus, nats.url, server, folder)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
