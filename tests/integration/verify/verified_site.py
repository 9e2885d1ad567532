"""A whole site of real parts, to be broken piece by piece: each part is a process of its own, or a server in this one.

A nats-server with the product's accounts, a planner that reads a real Prometheus, two agents with simulated GPUs, and
the Kubernetes connector with an account of few rights against the API server's double.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable, keep
from bus_schemas.jetstream.reader import last
from bus_schemas.subjects import Subjects
from deploy.nats.embedded import EmbeddedServer
from deploy.nats.roles import BUS_ACCOUNT, SiteAccounts, accounts, inbox_prefix
from planner.adapters.metrics.prometheus_client import PrometheusClient, PrometheusSettings
from tests.command_line import Done, wattscale
from tests.contract.bus import connected, until
from tests.contract.kubernetes.api_server import ApiServer, Rule, api_server
from tests.contract.kubernetes.connector_site import ADAPTER_RULES
from tests.contract.kubernetes.operators.graph_operator import operated
from tests.doubles.engine_metrics import EngineMetrics, MetricsServer
from tests.free_ports import free_port
from tests.integration.prometheus_process import prometheus
from tests.kubeconfig_file import kubeconfig
from tests.unit.deploy.cli.test_simulate import profile_folder

ROOT = Path(__file__).parents[3]
MODEL, SITE, NODES = "llama-8b", "row", ("node-0", "node-1")
GPUS_PER_NODE = 2
PASSWORD = "of-this-test"
WAIT_S = 60.0
SKEWED = """
import datetime
import time

class Ahead(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(hours=1)

datetime.datetime = Ahead
"""
"""A module that sets the clock of one process an hour ahead, for everything that asks it for the date."""


@dataclass(slots=True)
class SitePart:
    """One command as a process, which may be stopped and started again. ``log`` has what it printed."""

    words: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    process: asyncio.subprocess.Process | None = None

    async def start(self, **more: str) -> None:
        """Start it, with ``more`` in its environment."""
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "deploy.cli.main", *self.words),
                cwd=ROOT,
                env={**self.environment, **more},
                stdout=log,
                stderr=log,
            )

    async def stop(self) -> None:
        """End it in order."""
        if self.process is not None and self.process.returncode is None:
            self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), WAIT_S)
            finally:
                if self.process.returncode is None:
                    self.process.kill()
                    await self.process.wait()


class VerifiedSite:
    """The parts by name, and `wattscale verify` against them.

    ``components``: of the graph, with their first replicas; ``engines``: by component, its pool. ``pages``: by part,
    the port of its pages; Prometheus scrapes them ``every`` so often.
    """

    components: ClassVar[Mapping[str, int]] = {"Decode": 1}
    engines: ClassVar[Mapping[str, str]] = {"backend": "decode"}
    every = "250ms"

    def __init__(self, folder: Path, server: EmbeddedServer, bus: Bus, kube: ApiServer, metrics: MetricsServer) -> None:
        self.folder, self.server, self.bus, self.kube, self.metrics = folder, server, bus, kube, metrics
        self.deployment = f"{kube.namespace}-chat"
        self.profile = profile_folder(folder)
        self.prometheus_port = free_port()
        self.role = ""
        self.graph = ""
        self.parts: dict[str, SitePart] = {}
        self.pages: dict[str, int] = {}
        self._prometheus = AsyncExitStack()

    @property
    def prometheus_url(self) -> str:
        return f"http://127.0.0.1:{self.prometheus_port}"

    async def start_prometheus(self) -> None:
        """Start it, also again at the same address and with the same data. Returns when it has scraped the engines."""
        begun_s = time.time()
        (self.folder / "prometheus").mkdir(exist_ok=True)
        targets = {"engines": self.metrics.url.split("/")[2]}
        targets |= {part: f"127.0.0.1:{port}" for part, port in self.pages.items()}
        await self._prometheus.enter_async_context(
            prometheus(self.folder / "prometheus", targets, every=self.every, port=self.prometheus_port)
        )
        client = PrometheusClient(PrometheusSettings(self.prometheus_url))
        try:
            await until(lambda: _scraped_since(client, begun_s), "a scrape", WAIT_S, 0.1)
        finally:
            await client.close()

    async def stop_prometheus(self) -> None:
        await self._prometheus.aclose()

    def file(self, name: str, content: Mapping[str, Any]) -> Path:
        path = self.folder / name
        path.write_text(yaml.safe_dump(dict(content)))
        return path

    def login(self, user: str, role: str, name: str = "") -> dict[str, Any]:
        return {"servers": [self.server.url], "user": user, "inbox_prefix": inbox_prefix(role, name)}

    def planner_settings(self) -> Path:
        """Settings of a small deployment that is read from Prometheus; streams are kept by another tool."""
        pool = {"role": "aggregated", "component": "backend", "min_replicas": 2, "max_replicas": 2}
        deployment = {
            "site": SITE,
            "model": MODEL,
            "profile": str(self.profile),
            "pools": {"decode": pool},
            "metrics": {"source": "prometheus"},
        }
        site = {
            "budget_watts": 2000,
            "expected_gpus": GPUS_PER_NODE * len(NODES),
            "stale_s": 4,
            "settle_s": 0.2,
            "flight_s": 0.2,
            "lease_s": 10,
        }
        content = {
            "interval_s": 2,
            "bus": self.login("planner", "planner"),
            "provision": False,
            "prometheus": {"url": self.prometheus_url},
            "kubernetes": {"mode": "off"},
            "health": {"port": None},
            "lease": {"ttl_s": 3},
            "sites": {SITE: site},
            "deployments": {self.deployment: deployment},
        }
        return self.file("planner.yaml", content)

    def agent_settings(self, node: str) -> Path:
        content = {
            "node": node,
            "driver": "simulated",
            "simulated": {"gpus": GPUS_PER_NODE, "load_watts": 150},
            "nats": self.login(node, "agent", node),
            "http": {"port": None},
            "kubernetes": {"mode": "off"},
            "telemetry_interval_s": 0.5,
        }
        return self.file(f"{node}.yaml", content)

    def connector_settings(self) -> Path:
        content = {
            "deployment": self.deployment,
            "namespace": self.kube.namespace,
            "graph": self.graph,
            "kubeconfig": str(self.folder / "account"),
            "http": {"port": None},
            "nats": self.login("connector", "connector", "connector"),
        }
        return self.file("connector.yaml", content)

    def kubeconfig(self, name: str, token: str) -> Path:
        """A kubeconfig for an account; without a token, the administrator's."""
        return kubeconfig(self.folder / name, self.kube.api.access.server, token or "secret", self.kube.namespace)

    def _add(self, name: str, *words: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("WATTSCALE_NATS_")}
        environment = {**kept, "PYTHONPATH": str(ROOT), "WATTSCALE_NATS_PASSWORD": PASSWORD}
        self.parts[name] = SitePart(words, environment, self.folder / f"{name}.log")

    async def start(self, graph: str) -> None:
        """Write all settings and start every part."""
        self.graph = graph
        self.role, token = await self._account(*ADAPTER_RULES)
        self.kubeconfig("account", token)
        self.kubeconfig("administrator", "")
        self._add("planner", "planner", "run", "-c", str(self.planner_settings()))
        for node in NODES:
            self._add(node, "agent", "power", "--settings", str(self.agent_settings(node)))
        self._add("connector", "connector", "kubernetes", "--settings", str(self.connector_settings()))
        await self.start_prometheus()
        for part in self.parts.values():
            await part.start()

    async def _account(self, *rules: Rule) -> tuple[str, str]:
        """The path of the connector's Role, and its token."""
        token = await self.kube.account("connector", *rules)
        home = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.kube.namespace}/roles"
        return f"{home}/{self.kube.mark}-connector", token

    async def stop(self) -> None:
        """End everything that was started."""
        for part in reversed(self.parts.values()):
            await part.stop()
        await self.stop_prometheus()

    async def run(self, *words: str, user: str = "planner", password: str = PASSWORD) -> Done:
        """A client command on this site's bus."""
        os.environ["WATTSCALE_NATS_PASSWORD"] = password
        try:
            return await wattscale(*words, "--nats-url", self.server.url, "--user", user)
        finally:
            del os.environ["WATTSCALE_NATS_PASSWORD"]

    async def verify(self, *words: str, **login: str) -> tuple[int, dict[str, dict[str, str]]]:
        """The exit code of one look, and its checks by name."""
        done = await self.run(
            *("verify", "--json", "--wait", "0", "-c", str(self.folder / "planner.yaml")),
            *("--agent-settings", str(self.folder / f"{NODES[0]}.yaml")),
            *("--connector-settings", str(self.folder / "connector.yaml")),
            *("--kubeconfig", str(self.folder / "administrator"), *words),
            **login,
        )
        assert done.out, done
        return done.code, {one["check"]: one for one in json.loads(done.out)["checks"]}

    def logs(self) -> str:
        """The end of what each part printed."""
        return "\n".join(f"== {name}\n{part.log.read_text()[-2000:]}" for name, part in self.parts.items())


def server_settings(folder: Path, deployment: str) -> dict[str, Any]:
    """The product's accounts, and one more user who may do anything with the streams."""

    def user(name: str) -> dict[str, str]:
        return {"user": name, "password": PASSWORD}

    made = accounts(
        Subjects(),
        SiteAccounts(
            planners=(user("planner"),),
            operators=(user("operator"),),
            observers=(user("observer"),),
            agents={node: user(node) for node in NODES},
            connectors={"connector": (user("connector"), (deployment,))},
        ),
    )
    made["accounts"][BUS_ACCOUNT]["users"].append(user("root"))
    return {**made, "jetstream": {"store_dir": str(folder), "limits": {"default_max_consumers": 1000}}}


@asynccontextmanager
async def verified_site(folder: Path, site_type: type[VerifiedSite] = VerifiedSite) -> AsyncIterator[VerifiedSite]:
    """A site with every part running, not necessarily settled yet."""
    engine = EngineMetrics(namespace="ns-chat")
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(api_server("double"))
        metrics = await stack.enter_async_context(MetricsServer(engine))
        settings = server_settings(folder / "store", f"{kube.namespace}-chat")
        server = await stack.enter_async_context(EmbeddedServer(folder / "store", port=free_port(), settings=settings))
        os.environ["WATTSCALE_NATS_PASSWORD"] = PASSWORD
        bus = await stack.enter_async_context(connected(server.url, user="root"))
        await stream_admin.apply(bus)
        operator = await stack.enter_async_context(operated(kube, name="g", version="v1beta1", **site_type.components))
        site = site_type(folder, server, bus, kube, metrics)
        durables = [Durable.scaling(bus, site.deployment), *(Durable.power(bus, node) for node in NODES)]
        tasks = [asyncio.create_task(keep(bus, lambda: durables, 0.5)), asyncio.create_task(_load(site))]
        try:
            await site.start(operator.graph)
            yield site
        finally:
            await site.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            os.environ.pop("WATTSCALE_NATS_PASSWORD", None)


async def _scraped_since(client: PrometheusClient, begun_s: float) -> bool:
    return any(row.value > begun_s for row in await client.query("timestamp(up)"))


async def _load(site: VerifiedSite) -> None:
    """A steady load, on whichever engine the metrics page shows now; the second worker comes once it was asked for."""
    workers = 1
    while True:
        engine = site.metrics.engine
        if workers == 1 and await last(site.bus, site.bus.subjects.ack_scaling(site.deployment)) is not None:
            workers = 2
        for component, pool in site.engines.items():
            for number in range(workers):
                engine.worker(MODEL, component, f"{pool}-{number}", running=1, waiting=0, kv=0.2)
        engine.serve(MODEL, 2, isl=1000, osl=200, ttft_s=0.2, itl_s=0.02)
        await asyncio.sleep(0.2)
