"""Composes the Kubernetes connector from its settings, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest

from agent.adapters.kubernetes.api import ApiError
from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
from agent.connectors.kubernetes.pool_watch import PoolWatch, WatchedPools, collection
from agent.connectors.scaling_channel import ScalingChannel
from agent.core.scaling.kubernetes.needed_rights import manifest_lines, needed
from agent.core.scaling.kubernetes.scale_targets import ADAPTER_GROUP, ADAPTERS, ScaleTarget
from agent.runtime.health import AgentHealthServer
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.subjects import BadNameError, scaling_consumer
from deploy.cli.errors import UsageError
from deploy.compose.connectors.connector_metrics import ChannelMetrics
from deploy.compose.connectors.connector_process import connected, log_to_stderr, run_until_signal

if TYPE_CHECKING:
    from agent.connectors.kubernetes.cluster_client import ClusterClient

log = logging.getLogger("wattscale.connector")
NOT_FOUND, FORBIDDEN = 404, 403
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


def run_kubernetes(settings: KubernetesFile) -> int:
    """Run until SIGTERM or SIGINT. Raises UsageError for settings that cannot work here."""
    try:
        import kubernetes_asyncio  # noqa: F401
    except ImportError as error:
        raise UsageError("kubernetes-asyncio is not installed: pip install 'wattscale[kubernetes]'") from error
    log_to_stderr(settings.log_level)
    try:
        scaling_consumer(settings.deployment)
    except BadNameError as error:
        raise UsageError(f"deployment: {error}") from error
    return asyncio.run(_run(settings))


@dataclass(slots=True)
class KubernetesView:
    """What the pages show. The parts are None until bus and cluster were reached."""

    deployment: str
    channel: ScalingChannel | None = None
    watch: PoolWatch | None = None
    trouble: str = "the bus has not been reached yet"

    @property
    def not_ready(self) -> str:
        """Why decisions cannot be carried out now; empty where they can."""
        if self.trouble or self.channel is None or self.watch is None:
            return self.trouble
        return self.watch.unknown if self.channel.connected else "the bus is away"

    def page(self) -> bytes:
        """The metrics as text in Prometheus' format."""
        registry = CollectorRegistry()
        if self.channel is not None:
            registry.register(ChannelMetrics(self.channel))
        return generate_latest(registry)


async def _run(settings: KubernetesFile) -> int:
    from agent.connectors.kubernetes.cluster_client import NoClusterError

    view = KubernetesView(settings.deployment)
    parts = {"connector": _connector(settings, view)}
    if settings.http.port is not None:
        parts["http"] = AgentHealthServer(view, view.page, host=settings.http.host, port=settings.http.port).run()
    try:
        return await run_until_signal(parts)
    except NoClusterError as error:
        raise UsageError(str(error)) from error


async def _connector(settings: KubernetesFile, view: KubernetesView) -> None:
    from agent.connectors.kubernetes.cluster_client import ClusterClient

    name = settings.name or f"kubernetes on {socket.gethostname()}"
    async with await ClusterClient.open(settings.kubeconfig) as cluster:
        bus = await connected(settings.nats.model_copy(update={"name": f"wattscale-connector-{settings.deployment}"}))
        try:
            pools = set(settings.targets) or None
            channel = ScalingChannel(bus, settings.deployment, name, lambda: pools)
            view.channel = channel
            await run_together({"decisions": channel.run(), "scaling": _scaling(cluster, settings, view, channel)})
        finally:
            await bus.close()


async def _scaling(
    cluster: ClusterClient, settings: KubernetesFile, view: KubernetesView, channel: ScalingChannel
) -> None:
    from agent.connectors.kubernetes.scaler import KubernetesScaler

    await channel.started.wait()
    watched = await _watched(cluster, settings, view, channel)
    watch = view.watch = PoolWatch(cluster, watched, settings.view_settings(), channel.changed.set)
    scaler = KubernetesScaler(cluster, channel, watch, overwrite=settings.second_writer == "loses")
    watches = {f"watch {path}": one.run() for path, one in watch.watches.items()}
    await run_together({"scaler": scaler.run(), **watches})


async def _watched(
    cluster: ClusterClient, settings: KubernetesFile, view: KubernetesView, channel: ScalingChannel
) -> WatchedPools:
    """What to watch, once the cluster answers and gives every right.

    Until then the reason is logged, shown, and given in the acknowledgement of a decision.
    """
    targets = settings.scale_targets()
    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    while True:
        try:
            version = await _version(cluster, settings) if settings.graph else ""
            adapter = ScaleTarget(ADAPTER_GROUP, version, ADAPTERS, settings.namespace, "")
            rights = needed(targets.values() if targets else [adapter])
            missing = [right for right in rights if not await cluster.allowed(right)]
            if not missing:
                keda = await _served(cluster, collection("keda.sh", "v1alpha1", settings.namespace, "scaledobjects"))
                view.trouble = ""
                return WatchedPools(settings.namespace, settings.graph, version, targets, keda)
            view.trouble = "; ".join(manifest_lines(missing))
        except ApiError as error:
            view.trouble = f"Kubernetes: {error}"
        log.error("%s", view.trouble)
        await _wait(view.trouble, channel, backoff.next_s())


async def _wait(trouble: str, channel: ScalingChannel, pause_s: float) -> None:
    """Wait before the next try, and acknowledge each decision that comes meanwhile."""
    from agent.connectors.kubernetes.scaler import waiting

    try:
        async with asyncio.timeout(pause_s):
            while True:
                channel.changed.clear()
                if decision := channel.state.pursued:
                    await channel.report(waiting(decision, trouble))
                await channel.changed.wait()
    except TimeoutError:
        return


async def _version(cluster: ClusterClient, settings: KubernetesFile) -> str:
    """The version of Dynamo's kinds that the server has, the newer one first. Raises ApiError."""
    for version in ("v1beta1", "v1alpha1"):
        if await _served(cluster, collection(ADAPTER_GROUP, version, settings.namespace, ADAPTERS)):
            return version
    raise ApiError(NOT_FOUND, f"{ADAPTERS}.{ADAPTER_GROUP} is not defined there: install Dynamo's operator")


async def _served(cluster: ClusterClient, path: str) -> bool:
    """Whether a collection may be listed. Raises ApiError for any answer but 403 and 404."""
    try:
        await cluster.get(path, {"limit": "1"})
    except ApiError as error:
        if error.status == NOT_FOUND:
            return False
        if error.status == FORBIDDEN:
            # It may be served: the review of rights says what is missing. KEDA's are optional.
            return "keda.sh" not in path
        raise
    return True
