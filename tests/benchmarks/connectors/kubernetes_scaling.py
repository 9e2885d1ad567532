"""From a decision on the bus to the patch of ``/scale`` sent, and what many deployments cost one connector. By hand.

    python tests/benchmarks/connectors/kubernetes_scaling.py [--deployments 500] [--decisions 300] [--json FILE|-]

Starts nats-server, the Kubernetes double and one process of the connector. The floor is a bare patch of ``/scale`` by
the same client library over the same loopback: no decision is sent faster than that.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from agent.adapters.kubernetes.access import Access
from agent.adapters.kubernetes.api import KubernetesApi
from agent.connectors.kubernetes.cluster_client import ClusterClient
from agent.core.scaling.kubernetes.scale_targets import target_of
from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.consumers import Durable, keep
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.reader import last
from tests.contract.bus import bench, until
from tests.contract.kubernetes.api_server import ApiServer
from tests.contract.kubernetes.connector_site import WORKLOAD_RULES, ConnectorSite
from tests.doubles.kubernetes import KubernetesDouble

NAMESPACE = "ns"
LONG_S = 300.0


def deployment(name: str) -> dict[str, Any]:
    """A Deployment whose one pod serves."""
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": template},
        "status": {"observedGeneration": 1, "replicas": 1, "readyReplicas": 1, "updatedReplicas": 1},
    }


def pod(name: str) -> dict[str, Any]:
    """A pod that serves."""
    return {
        "metadata": {"name": f"{name}-0", "namespace": NAMESPACE, "labels": {"app": name}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "main", "image": "none"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


async def decide(bus: Bus, name: str, number: int, count: int) -> None:
    """Publish a decision for the pool decode."""
    pools = {"decode": v1.PoolTarget(role="decode", replicas=count)}
    decision = v1.ScalingDecision(
        time=datetime.now(UTC), deployment=name, decision_id=number, incarnation="one", epoch=1, pools=pools
    )
    await publish(bus, bus.subjects.decision_scaling(name), decision, f"{name}-{number}")


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    fields = Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()
    return int(fields[0]) / 1024


def shares(seconds: list[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(seconds)
    return {
        "p50_ms": round(statistics.median(ordered) * 1e3, 2),
        "p99_ms": round(ordered[int(len(ordered) * 0.99)] * 1e3, 2),
    }


async def bare_patches(file: Path, kube: KubernetesDouble, name: str, rounds: int) -> list[float]:
    """Bare patches, one after the other."""
    target = target_of(f"deployments.v1.apps/{name}", NAMESPACE)
    took = []
    async with await ClusterClient.open(file) as cluster:
        for number in range(rounds):
            version = kube.find("apps", "deployments", NAMESPACE, name)["metadata"]["resourceVersion"]
            began_s = time.perf_counter()
            await cluster.scale(target, 2 + number % 2, version)
            took.append(time.perf_counter() - began_s)
    return took


async def measure(names: list[str], decisions: int, folder: Path) -> dict[str, Any]:
    """Memory with all deployments followed, the time to a patch, and the floor."""
    async with (
        bench(folder / "bus") as (nats, bus),
        KubernetesDouble() as kube,
        KubernetesApi(Access(kube.url)) as api,
    ):
        for name in [*names, "floor"]:
            await kube.put("apps", "deployments", deployment(name))
            await kube.put("", "pods", pod(name))
        server = ApiServer(api, NAMESPACE)
        token = await server.account("c", *WORKLOAD_RULES)
        site = ConnectorSite(bus, nats.url, server, folder)
        targets = {name: {"targets": {"decode": f"deployments.v1.apps/{name}"}} for name in names}
        keeper = asyncio.create_task(keep(bus, lambda: [Durable.scaling(bus, name) for name in names], 2.0))
        try:
            async with site.connector(token, settings={"deployments": targets, "log_level": "error"}) as process:
                for name in names:
                    await decide(bus, name, 0, 1)
                for name in names:
                    await acknowledged(bus, name)
                memory_mb = resident_mb(process.pid)
                took = [await patched(bus, kube, names[n % len(names)], n // len(names) + 1) for n in range(decisions)]
                # What a decision leaves in memory is in it, too.
                memory_mb = max(memory_mb, resident_mb(process.pid))
            floor = await bare_patches(site.kubeconfig(token), kube, "floor", decisions)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
    ratio = statistics.median(took) / statistics.median(floor)
    return {
        "deployments": len(names),
        "resident_mb": round(memory_mb, 1),
        "decision_to_patch": shares(took),
        "floor_bare_patch": shares(floor),
        "ratio_to_floor": round(ratio, 2),
    }


async def acknowledged(bus: Bus, name: str) -> None:
    """Wait for the deployment's first decision."""

    async def applied() -> bool:
        found = await last(bus, bus.subjects.ack_scaling(name))
        return found is not None and getattr(found.message, "status", "") == "applied"

    await until(applied, f"{name} applied", LONG_S, 0.2)


async def patched(bus: Bus, kube: KubernetesDouble, name: str, number: int) -> float:
    """Seconds from the publication of a decision until the double has the patched count."""
    count = 2 + number % 2
    began_s = time.perf_counter()
    await decide(bus, name, number, count)
    while kube.find("apps", "deployments", NAMESPACE, name)["spec"]["replicas"] != count:
        await asyncio.sleep(0.0005)
        if time.perf_counter() - began_s > LONG_S:
            raise TimeoutError(f"{name}: decision {number} was not patched")
    return time.perf_counter() - began_s


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--deployments", type=int, default=500)
    parser.add_argument("--decisions", type=int, default=300)
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    names = [f"d{number}" for number in range(args.deployments)]
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(names, args.decisions, Path(folder)))
    text = json.dumps(found, indent=2)
    print(text)
    if args.json and args.json != "-":
        Path(args.json).write_text(text + "\n")


if __name__ == "__main__":
    main()
