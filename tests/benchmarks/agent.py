"""Numbers of the power agent: memory and idle CPU of the real process, and the way from a decision to its answer.

Run ``python -m tests.benchmarks.agent``. Starts a real nats-server; prints one JSON object per line. Nothing is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

import agent
from bus_schemas.jetstream.connect import Bus
from bus_schemas.v1 import NodeTelemetry
from tests.doubles.kubelet import FakeKubelet
from tests.doubles.kubernetes import KubernetesDouble
from tests.doubles.nvml.loaded import library_environment
from tests.doubles.nvml.state import FakeNvml
from tests.free_ports import free_port
from tests.integration.agent.server import NatsServer
from tests.integration.agent.wire import PlannerSide, connected

NODE = "bench-node"
SCRAPE_S = 4.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of ``values`` lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def unit_environment() -> dict[str, str]:
    """The variables that the systemd unit sets."""
    unit = (Path(agent.__file__).parent / "wattscale-agent.service").read_text()
    lines = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("Environment=")]
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def compile_modules(folder: Path) -> None:
    """Compiled modules in ``folder``, as pip leaves them: an agent that compiles its own keeps the memory for it."""
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    modules = "deploy.cli.main, deploy.compose.agent_service, agent.runtime.health, agent.runtime.instruments"
    everything = f"import {modules}, agent.drivers.nvml.driver, pynvml, yaml"
    subprocess.run([sys.executable, "-c", everything], env=environment, check=True)


@dataclass(frozen=True, slots=True)
class BenchAgent:
    """A running agent: its process id and the address of its metrics."""

    pid: int
    metrics: str

    async def scrape(self) -> str:
        """Ask for the metrics once, as Prometheus does."""
        async with aiohttp.ClientSession() as session, session.get(self.metrics) as answer:
            return await answer.text()

    async def reading(self) -> None:
        """Wait until the GPUs have been read."""
        async with asyncio.timeout(60):
            while True:
                try:
                    if "wattscale_gpu_enforced_watts" in await self.scrape():
                        return
                except aiohttp.ClientError:
                    pass  # Not listening yet.
                await asyncio.sleep(0.2)


@asynccontextmanager
async def agent_process(*flags: str, env: dict[str, str] | None = None, node: str = NODE) -> AsyncIterator[BenchAgent]:
    """``wattscale agent power`` as an operator runs it."""
    port = free_port()
    program = ["-m", "deploy.cli.main", "agent", "power", "--node", node, "--log-level", "warning"]
    program += ["--host", "127.0.0.1", "--port", str(port)]
    environment = {**(env or os.environ), **unit_environment()}
    process = await asyncio.create_subprocess_exec(sys.executable, *program, *flags, env=environment)
    try:
        yield BenchAgent(process.pid, f"http://127.0.0.1:{port}/metrics")
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def rss_mb(pid: int) -> float:
    """Resident memory in MB (10^6 bytes)."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


async def idle(name: str, process: BenchAgent, seconds: float) -> None:
    """Memory and CPU of an agent that has nothing to do but watch, and is scraped every four seconds."""
    await process.reading()
    await asyncio.sleep(3.0)
    before_cpu, before = cpu_s(process.pid), time.monotonic()
    while time.monotonic() - before < seconds:
        await process.scrape()
        await asyncio.sleep(min(SCRAPE_S, seconds))
    share = (cpu_s(process.pid) - before_cpu) / (time.monotonic() - before)
    report(name, rss_mb=round(rss_mb(process.pid), 1), idle_cpu_percent=round(100 * share, 2), seconds=seconds)


async def round_trips(side: PlannerSide, uuids: list[str], count: int) -> list[float]:
    """Seconds from publishing a decision to its answer with the new limits in force."""
    answers = await side.bus.nc.subscribe(side.bus.subjects.ack_power(side.node))
    took = []
    for number in range(count):
        began = time.perf_counter()
        await side.decide(dict.fromkeys(uuids, 300.0 + number % 2 * 100.0))
        while True:
            answer = json.loads((await answers.next_msg(timeout=20)).data)
            if answer["applied_decision_id"] >= number:
                break
        took.append(time.perf_counter() - began)
    await answers.unsubscribe()
    return took


def report(name: str, **values: Any) -> None:
    """One result."""
    print(json.dumps({"benchmark": name, **values}), flush=True)


async def measure(rounds: int, idle_s: float) -> None:
    """All of it."""
    with tempfile.TemporaryDirectory(prefix="wattscale-bench-") as scratch:
        folder = Path(scratch)
        compile_modules(folder / "compiled")
        async with NatsServer(folder / "nats") as server, connected(server.url) as bus:
            await PlannerSide(bus, NODE).prepare()
            await latency(server.url, bus, rounds)
            await idling(folder, server.url, idle_s)


def has_gpus(count: int, telemetry: NodeTelemetry) -> bool:
    return len(telemetry.gpus) == count


async def latency(url: str, bus: Bus, rounds: int) -> None:
    """Simulated GPUs, two sizes."""
    for gpus in (8, 64):
        side = PlannerSide(bus, f"{NODE}-{gpus}")
        await side.prepare()
        async with agent_process(
            "--driver", "simulated", "--gpus", str(gpus), "--nats-url", url, node=side.node
        ) as process:
            await side.telemetry_where(functools.partial(has_gpus, gpus))
            took = await round_trips(side, [f"GPU-{side.node}-{index:02d}" for index in range(gpus)], rounds)
            values = {f"p{int(share * 100)}_ms": round(1000 * percentile(took, share), 2) for share in (0.5, 0.99)}
            report(
                "decision -> cap -> ack", gpus=gpus, decisions=rounds, **values, rss_mb=round(rss_mb(process.pid), 1)
            )


async def idling(folder: Path, url: str, seconds: float) -> None:
    """Eight GPUs under the real bindings on the library with NVML's ABI; alone on a bus, then with Kubernetes too."""
    fake = FakeNvml(folder / "nvml", 8)
    environment = library_environment(fake)
    async with agent_process("--nats-url", url, env=environment) as process:
        await idle("idle, 8 GPUs, NVML bindings, bus", process, seconds)
    async with KubernetesDouble() as kube, FakeKubelet(folder) as kubelet:
        config = folder / "kubeconfig"
        config.write_text(kubeconfig(kube.url))
        flags = ["--kubernetes", "on", "--kubeconfig", str(config), "--pod-resources", str(kubelet.socket)]
        flags += ["--safe-default-watts", "500", "--nats-url", url]
        async with agent_process(*flags, env=environment) as process:
            await idle("idle, 8 GPUs, NVML bindings, bus, pods and kubelet", process, seconds)


def kubeconfig(url: str) -> str:
    """A kubeconfig for the double, in JSON: a pod's agent, which has a service account, loads no YAML either."""
    return json.dumps(
        {
            "current-context": "x",
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "clusters": [{"name": "x", "cluster": {"server": url}}],
            "users": [{"name": "x", "user": {}}],
        }
    )


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="decisions for each size")
    parser.add_argument("--idle-s", type=float, default=30.0, help="how long to watch an idle agent")
    args = parser.parse_args()
    asyncio.run(measure(args.rounds, args.idle_s))


if __name__ == "__main__":
    main()
