"""``environment`` of Dynamo's planner: `wattscale planner run` starts the connector that is meant, or says why not."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.connectors.virtual.bridge import TWO_ROLES
from agent.connectors.virtual.dynamo_keys import own_prefix
from agent.connectors.virtual.etcd_gateway import EtcdAccess, EtcdGateway, put
from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import last
from tests.command_line import wattscale
from tests.contract.bus import bench, until
from tests.contract.dynamo.etcd_process import EtcdProcess
from tests.contract.kubernetes.api_server import api_server
from tests.contract.kubernetes.connector_site import ADAPTER_RULES, ConnectorSite
from tests.contract.kubernetes.operators.graph_operator import ADAPTERS, operated
from tests.free_ports import free_port
from tests.running_processes import children
from tests.shared_data import ROOT

PREFIX = "v1/dynamo/planner/"
FRONTEND = ("--set", "deployments.dynamo.pools.frontend={requests_per_s: 10}")
CLAIM = f"{own_prefix('dynamo')}connector"


class PinnedPlanner:
    """`wattscale planner run` with one deployment, ``dynamo``, whose counts are pinned by commands."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self.bus, self.log = bus, folder / "planner.log"
        self._process: asyncio.subprocess.Process | None = None

    @asynccontextmanager
    async def running(self, *flags: str, **variables: str) -> AsyncIterator[None]:
        """The process, killed at the end if it still runs. Its log is shown where the test fails."""
        words = ["planner", "run", "--guide-defaults", "load", *flags, "--set", "health.port=none"]
        words += ["--adjustment-interval=1", "--prometheus-endpoint=http://127.0.0.1:9"]
        words += ["--set", f"bus.servers=[{self.bus.settings.servers[0]}]", "--set", "lease.ttl_s=2"]
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "deploy.cli.main", *words),
                cwd=ROOT,
                env={**os.environ, **variables},
                stderr=log,
            )
        try:
            yield
        except BaseException:
            lines = [line for line in self.log.read_text().splitlines() if "planner.interval" not in line]
            print("\n".join(lines)[-5000:])
            raise
        finally:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()

    def children(self) -> list[int]:
        """Process ids of its children."""
        assert self._process is not None
        return children(self._process.pid)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it, and its exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), 60)

    async def logged(self, *texts: str) -> None:
        """Wait for a line with all these texts."""

        def found() -> bool:
            return any(all(text in line for text in texts) for line in self.log.read_text().splitlines())

        await until(found, f"{texts} in the log")

    async def pin(self, **replicas: int) -> None:
        """Pin the counts as an operator does."""
        counts = [f"{pool}={count}" for pool, count in replicas.items()]
        done = await wattscale(
            "deployment", "pin", "dynamo", *counts, "--force", "--nats-url", self.bus.settings.servers[0]
        )
        assert done.code == 0, done

    async def shown(self, *words: str) -> str:
        """What a command prints about it."""
        return (await wattscale(*words, "--nats-url", self.bus.settings.servers[0])).out

    async def acked(self, holds: Callable[[v1.ScalingAck], bool], deployment: str = "dynamo") -> v1.ScalingAck:
        """The newest acknowledgement, once it is as ``holds`` says."""

        async def found() -> v1.ScalingAck | None:
            stored = await last(self.bus, self.bus.subjects.ack_scaling(deployment))
            ack = stored.message if stored is not None else None
            return ack if isinstance(ack, v1.ScalingAck) and holds(ack) else None

        ack = await until(found, "an acknowledgement")
        assert ack is not None
        return ack


@asynccontextmanager
async def planner_of(folder: Path) -> AsyncIterator[PinnedPlanner]:
    async with bench(folder / "bus") as (_, bus):
        yield PinnedPlanner(bus, folder)


async def carried_out(planner: PinnedPlanner, etcd: EtcdGateway, decode: int) -> None:
    """Wait for this count of decode workers in etcd, complete it as a client does, and wait for our acknowledgement."""

    async def found() -> str:
        keys, _ = await etcd.snapshot([PREFIX])
        held = keys.get(f"{PREFIX}num_decode_workers")
        return keys[f"{PREFIX}decision_id"].text if held is not None and held.text == str(decode) else ""

    number = await until(found, f"{decode} decode workers in etcd")
    await etcd.transact([], [put(f"{PREFIX}scaled_decision_id", number)])
    await planner.acked(lambda ack: ack.status is v1.AckStatus.APPLIED and ack.num_decode_workers == decode)


@pytest.mark.long
async def test_virtual_serves_clients_of_etcd_while_the_planner_leads_and_ends_with_it(tmp_path: Path) -> None:
    async with (
        EtcdProcess(tmp_path / "etcd") as server,
        EtcdGateway(EtcdAccess((server.url,))) as etcd,
        planner_of(tmp_path) as planner,
    ):
        virtual = ("--environment=virtual", "--backend=vllm", *FRONTEND)
        async with planner.running(*virtual, ETCD_ENDPOINTS=server.url):
            await planner.logged("connector virtual of dynamo: started", server.url)
            await planner.pin(prefill=1, decode=3, frontend=2)
            await carried_out(planner, etcd, 3)
            explained = await planner.shown("explain", "dynamo")
            assert "prefill=1 decode=3 frontend=2" in explained
            assert f"applied (frontend=2 is left to others: {TWO_ROLES})" in explained
            # Its failure is named, and the planner goes on without it.
            await server.kill()
            await planner.pin(prefill=1, decode=4)
            await planner.logged("decisions of dynamo wait: ", f"{server.url} does not answer")
            await server.start()
            await carried_out(planner, etcd, 4)
            assert planner.children() == []
            assert await planner.stop() == 0
        held, _ = await etcd.snapshot([CLAIM])
        assert not held, "an orderly end leaves no claim"
        async with planner.running(*virtual, ETCD_ENDPOINTS=server.url):
            await planner.pin(prefill=1, decode=5)
            await carried_out(planner, etcd, 5)
            await planner.stop(signal.SIGKILL)
        # Nothing is left that would pass decisions on: another planner and its connector take over.
        async with planner.running(*virtual, ETCD_ENDPOINTS=server.url):
            await planner.pin(prefill=1, decode=6)
            await carried_out(planner, etcd, 6)
            assert await planner.stop() == 0


@pytest.mark.long
async def test_a_connector_that_scales_already_is_named_and_the_planner_goes_on(tmp_path: Path) -> None:
    async with (
        EtcdProcess(tmp_path / "etcd") as server,
        EtcdGateway(EtcdAccess((server.url,))) as etcd,
        planner_of(tmp_path) as planner,
    ):
        await etcd.transact([], [put(CLAIM, "dynamo by virtual on elsewhere process 7")])
        async with planner.running("--environment=virtual", ETCD_ENDPOINTS=server.url):
            await planner.logged("connector virtual of dynamo: failed", "virtual on elsewhere process 7", "stop it")
            assert await planner.stop() == 0


@pytest.mark.long
async def test_kubernetes_scales_the_graph_that_the_planner_is_part_of(tmp_path: Path) -> None:
    pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")
    async with (
        api_server("double") as server,
        planner_of(tmp_path) as planner,
        operated(server, Prefill=1, Decode=1, Frontend=1) as operator,
    ):
        token = await server.account("c", *ADAPTER_RULES)
        file = ConnectorSite(planner.bus, "", server, tmp_path).kubeconfig(token)
        flags = ["--environment=kubernetes", "--set", f"kubernetes.kubeconfig={file}", *FRONTEND]
        async with planner.running(*flags, DYN_PARENT_DGD_K8S_NAME=operator.graph):
            counts: dict[str, int] = {"prefill": 1, "decode": 3, "frontend": 2}
            await planner.pin(**counts)
            done = await planner.acked(lambda ack: ack.status is v1.AckStatus.APPLIED and ack.replicas == counts)
            assert done.actuator.startswith("kubernetes on ")
            for component, count in (("Decode", 3), ("Frontend", 2)):
                scale = await server.api.get(operator.path(ADAPTERS, operator.adapter_name(component), "scale"))
                assert scale["spec"]["replicas"] == count
            shown = await planner.shown("explain", "dynamo")
            assert "prefill=1 decode=3 frontend=2" in shown
            assert "frontend (frontend)" in shown
            pools = json.loads(await planner.shown("status", "--json"))["deployments"]["dynamo"]["pools"]
            assert {pool: one["granted"] for pool, one in pools.items()} == counts
            assert await planner.stop() == 0


@pytest.mark.long
async def test_local_starts_workers_by_their_commands_and_they_outlive_the_planner(tmp_path: Path) -> None:
    engine = [sys.executable, "-m", "deploy.cli.main", "engine", "--port", "{port}", "--role", "{pool}"]
    block = {"command": engine, "folder": str(ROOT), "environment": {"PYTHONPATH": str(ROOT)}}
    content: dict[str, Any] = {
        "state_folder": str(tmp_path / "state"),
        "gpus": ["GPU-0", "GPU-1", "GPU-2"],
        "first_port": free_port(),
        "pools": {"prefill": block, "decode": block},
    }
    workers = tmp_path / "workers.yaml"
    workers.write_text(yaml.safe_dump(content))
    graph = tmp_path / "disagg.yaml"
    graph.write_text(yaml.safe_dump({"Planner": {"environment": "local", "no-operation": False}}))
    flags = ["-c", str(graph), "--set", f"deployments.dynamo.connector_settings={workers}"]

    def pids() -> list[int]:
        listed = json.loads((tmp_path / "state" / "workers.json").read_text())["workers"]
        return [one["pid"] for one in listed]

    async with planner_of(tmp_path) as planner:
        try:
            async with planner.running(*flags):
                await planner.pin(prefill=1, decode=2)
                await planner.acked(lambda ack: ack.replicas == {"prefill": 1, "decode": 2})
                assert await planner.stop() == 0
            before = pids()
            async with planner.running(*flags):  # it adopts them
                await planner.pin(prefill=1, decode=1)
                await planner.acked(
                    lambda ack: ack.status is v1.AckStatus.APPLIED and ack.replicas == {"prefill": 1, "decode": 1}
                )
                await until(lambda: len(pids()) == 2, "one worker less")
                assert set(pids()) < set(before)
                assert await planner.stop() == 0
        finally:
            for pid in pids():
                os.kill(pid, signal.SIGKILL)


REFUSED = {
    "kubernetes": (("--environment=kubernetes",), "not in a pod", "set kubernetes.kubeconfig"),
    "local": (("--environment=local",), "no", "set connector_settings to a file with pools and their commands"),
    "global-planner": (("--environment=global-planner",), "one planner plans all", "leave it out"),
    "unknown": (("--environment=cloud",), "'cloud' is none of kubernetes, virtual, local", ""),
    "etcd": (
        ("--environment=virtual", "--set", "deployments.dynamo.connector_settings={folder}/none.yaml"),
        "none.yaml: cannot be read",
        "",
    ),
    "file alone": (("--set", "deployments.dynamo.connector_settings=x.yaml"), "name the connector that reads it", ""),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("command", ["run", "check"])
async def test_what_cannot_be_started_is_refused_in_one_line(
    case: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KUBECONFIG"):
        monkeypatch.delenv(name, raising=False)
    flags, *texts = REFUSED[case]
    words = [word.format(folder=tmp_path) for word in flags]
    done = await wattscale("planner", command, "--guide-defaults", "load", *words)
    assert done.code == 2
    assert all(text in done.one_line() for text in texts), done
