"""How much memory the agent holds: every node of a site has one, beside the workload that it serves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.benchmarks.agent import NODE, agent_process, compile_modules, kubeconfig, rss_mb
from tests.doubles.kubelet import FakeKubelet
from tests.doubles.kubernetes import KubernetesDouble
from tests.doubles.nvml.loaded import library_environment
from tests.doubles.nvml.state import FakeNvml
from tests.integration.agent.server import NatsServer
from tests.integration.agent.wire import PlannerSide, connected

MOST_MB = 56
"""The aim with eight GPUs, the bus, pods and kubelet; `python -m tests.benchmarks.agent` prints a machine's figure."""
MACHINES_DIFFER_MB = 2.0
"""What another kernel or allocator may add: less than any library that a change could bring along."""


@pytest.mark.long
async def test_an_idle_agent_with_eight_gpus_holds_at_most_56_mb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiled modules are found here, and the variable is put back afterwards.
    monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path / "compiled"))
    await asyncio.to_thread(compile_modules, tmp_path / "compiled")
    environment = library_environment(FakeNvml(tmp_path / "nvml", 8))
    # A process whose coverage is measured would hold the measurement, too.
    environment = {name: value for name, value in environment.items() if not name.startswith("COVERAGE_")}
    async with (
        NatsServer(tmp_path / "nats") as server,
        connected(server.url) as bus,
        KubernetesDouble() as kube,
        FakeKubelet(tmp_path) as kubelet,
    ):
        await PlannerSide(bus, NODE).prepare()
        config = tmp_path / "kubeconfig"
        config.write_text(kubeconfig(kube.url))
        flags = ["--kubernetes", "on", "--kubeconfig", str(config), "--pod-resources", str(kubelet.socket)]
        flags += ["--safe-default-watts", "500", "--nats-url", server.url]
        async with agent_process(*flags, env=environment) as process:
            await process.reading()
            for _ in range(5):
                await process.scrape()
            held = rss_mb(process.pid)
    assert held <= MOST_MB + MACHINES_DIFFER_MB, f"{held:.1f} MB"
