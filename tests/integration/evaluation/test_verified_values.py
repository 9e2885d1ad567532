"""The evaluation's own settings, with each part as a process of this machine: requests are served, and verify is green.

In place of the cluster: the API server's double, a real Prometheus with the labels that the PodMonitor gives, and
addresses of this machine. Everything else is as the chart renders it.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.kubernetes.in_cluster import CUT, GRAPH, MODEL, PIN, PINNED, RELEASES, chat_graph
from deploy.nats.embedded import EmbeddedServer
from tests.command_line import Done, process, wattscale
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import ApiServer, api_server
from tests.contract.kubernetes.connector_site import WORKLOAD_RULES
from tests.contract.kubernetes.operators.workload_operator import DEPLOYMENT, Workload, WorkloadOperator
from tests.free_ports import free_port
from tests.integration.evaluation.evaluation_release import evaluation_release
from tests.integration.evaluation.recorded_programs import ROOT
from tests.integration.prometheus_process import prometheus
from tests.integration.verify.verified_site import SitePart
from tests.kubeconfig_file import kubeconfig

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.long]
WAIT_S = 120
NEEDS_A_CLUSTER = {"annotations", "rights", "driver here"}
"""Checks that need parts which only a cluster, or a node's agent, has."""


class EvaluationHere:
    """The parts, with files in ``folder``."""

    def __init__(self, folder: Path, bus: str, kube: ApiServer, token: str, workload: Workload) -> None:
        self.folder, self.bus, self.kube, self.token, self.workload = folder, bus, kube, token, workload
        self.engine_port, self.prometheus_port = free_port(), free_port()
        self.release = evaluation_release()

    def settings(self, component: str, **changes: Any) -> Path:
        """As rendered, with addresses of this machine."""
        content = yaml.safe_load(self.release.settings(f"-{component}")) | changes
        file = self.folder / f"{component}.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    def part(self, name: str, *words: str, **environment: str) -> SitePart:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("WATTSCALE_")}
        return SitePart(words, {**kept, "PYTHONPATH": str(ROOT), **environment}, self.folder / f"{name}.log")

    def parts(self) -> list[SitePart]:
        servers = [self.bus]
        planner = self.settings(
            "planner",
            bus={"servers": servers, "replicas": 1},
            prometheus={"url": f"http://127.0.0.1:{self.prometheus_port}"},
            health={"port": None},
            interval_s=3,
        )
        agent = self.settings(
            "agent",
            nats={"servers": servers},
            kubernetes={"mode": "off"},
            http={"port": None},
            state_file=str(self.folder / "managed.json"),
            lock_file=str(self.folder / "agent.lock"),
        )
        connector = self.settings(
            f"connector-{GRAPH}",
            nats={"servers": servers},
            namespace=self.kube.namespace,
            targets={"aggregated": f"deployments.v1.apps/{self.workload.name}"},
            kubeconfig=str(self._kubeconfig()),
            http={"port": None},
        )
        return [
            self.part("engine", *self._engine()),
            self.part("planner", "planner", "run", "-c", str(planner), WATTSCALE_LEASE__HOLDER="planner-1"),
            self.part("agent", "agent", "power", "--settings", str(agent), WATTSCALE_AGENT_NODE="node-1"),
            self.part("connector", "connector", "kubernetes", "--settings", str(connector)),
        ]

    def _engine(self) -> list[str]:
        words: list[str] = chat_graph("any")[0]["spec"]["template"]["spec"]["containers"][0]["args"]
        here = {"0.0.0.0": "127.0.0.1", "8000": str(self.engine_port)}
        return [here.get(word, word) for word in words]

    def _kubeconfig(self) -> Path:
        return kubeconfig(self.folder / "kubeconfig", self.kube.api.access.server, self.token, self.kube.namespace)

    def log(self, part: str) -> str:
        return (self.folder / f"{part}.log").read_text()

    async def load(self) -> Done:
        """Without the clean test's share of good requests: how fast this machine answers is not what is judged."""
        words = ("--model", MODEL, "--rate", "2", "--duration", "10", "--json")
        return await process("load", "--url", f"http://127.0.0.1:{self.engine_port}", *words, timeout_s=WAIT_S)

    async def order(self, command: Sequence[str]) -> Done:
        """A command that the clean test gives."""
        return await wattscale(*command, "--nats-url", self.bus)

    async def has_replicas(self) -> bool:
        item = await self.kube.api.get(self.workload.path())
        return (item.get("status") or {}).get("readyReplicas") == PINNED

    async def verify(self) -> tuple[int, Mapping[str, Mapping[str, str]]]:
        words = ("verify", "--json", "--wait", str(WAIT_S), "-c", str(self.folder / "planner.yaml"))
        done = await wattscale(*words)
        assert done.out, done
        return done.code, {one["check"]: one for one in json.loads(done.out)["checks"]}


@asynccontextmanager
async def _evaluation(folder: Path) -> AsyncIterator[EvaluationHere]:
    labels = chat_graph("any")[0]["spec"]["template"]["metadata"]["labels"]
    series = {
        "dynamo_namespace": labels["nvidia.com/dynamo-namespace"],
        "dynamo_component": labels["nvidia.com/dynamo-component"],
    }
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(EmbeddedServer(folder / "nats"))
        kube = await stack.enter_async_context(api_server("double"))
        workload = Workload(kube, DEPLOYMENT, GRAPH)
        await workload.make(1)
        await stack.enter_async_context(WorkloadOperator(kube, [workload]).running())
        token = await kube.account("connector", *WORKLOAD_RULES)
        site = EvaluationHere(folder, server.url, kube, token, workload)
        target = {"engine": f"127.0.0.1:{site.engine_port}"}
        (folder / "prometheus").mkdir()
        await stack.enter_async_context(
            prometheus(folder / "prometheus", target, every="1s", port=site.prometheus_port, labels=series)
        )
        for part in site.parts():
            stack.push_async_callback(part.stop)
            await part.start()
        yield site


async def test_the_evaluation_serves_requests_and_verifies(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    async with _evaluation(tmp_path) as site:
        await until(lambda: "engine on " in site.log("engine"), "the engine", WAIT_S)
        await until(lambda: '"message": "leading"' in site.log("planner"), "a leader", WAIT_S)
        # In the clean test's order.
        loaded = await site.load()
        assert loaded.code == 0, loaded
        figures = json.loads(loaded.out)
        assert figures["completed"] == figures["requests"] > 10, "every request is answered in whole"
        assert (pinned := await site.order(PIN)).code == 0, pinned
        await until(site.has_replicas, "the pinned count in the cluster", WAIT_S)
        # Ends with 0 only when the caps in force on all GPUs are within the new budget.
        assert (cut := await site.order(CUT)).code == 0, cut
        code, checks = await site.verify()
        logs = {file.name: file.read_text()[-2000:] for file in tmp_path.glob("*.log")}
        for words in RELEASES:
            assert (released := await site.order(words)).code == 0, released
        failed = {name: one for name, one in checks.items() if one["verdict"] == "fail"}
        assert failed == {}, logs
        assert code == 0
        skipped = {name for name, one in checks.items() if one["verdict"] == "skipped"}
        line = f"verify: {len(checks)} checks, skipped: {', '.join(sorted(skipped))}"
        record_property("measured", f"{line}; {figures['good_share']:.0%} of {figures['requests']} requests were good")
        assert skipped <= NEEDS_A_CLUSTER
