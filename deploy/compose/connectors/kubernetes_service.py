"""Composes the Kubernetes connector from its settings, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent.connectors.bus_claims import claimed
from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
from agent.connectors.kubernetes.node_telemetry import NodeTelemetryWatch
from agent.connectors.kubernetes.planned_power import PlannedPower
from agent.connectors.kubernetes.pool_watch import PoolWatch
from agent.connectors.kubernetes.scaling_events import ScalingEvents
from agent.connectors.kubernetes.shared_watches import SharedWatches, WatchedPools
from agent.connectors.scaling_channel import ScalingChannel
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.subjects import BadNameError, scaling_consumer
from deploy.cli.errors import UsageError
from deploy.compose.connectors.connector_metrics import ChannelMetrics, SecondWriterMetrics
from deploy.compose.connectors.connector_process import (
    connected,
    log_to_stderr,
    metrics_page,
    pages,
    run_until_signal,
    this_process,
)

if TYPE_CHECKING:
    from agent.connectors.kubernetes.cluster_client import ClusterClient
    from agent.connectors.kubernetes.scaler import KubernetesScaler

log = logging.getLogger("wattscale.connector")
Part = Callable[[], Coroutine[Any, Any, None]]
"""What runs beside others: begun only once all claims are held."""


def run_kubernetes(settings: KubernetesFile) -> int:
    """Run until SIGTERM or SIGINT. Raises UsageError for settings that cannot work here."""
    try:
        import kubernetes_asyncio  # noqa: F401
    except ImportError as error:
        raise UsageError("kubernetes-asyncio is not installed: pip install 'wattscale[kubernetes]'") from error
    log_to_stderr(settings.log_level)
    for pools in settings.watched():
        try:
            scaling_consumer(pools.deployment)
        except BadNameError as error:
            raise UsageError(f"deployment: {error}") from error
    return asyncio.run(_run(settings))


@dataclass(slots=True)
class KubernetesView:
    """What the pages show. Channels and watches are there once bus and cluster were reached."""

    channels: list[ScalingChannel] = field(default_factory=list)
    watches: list[PoolWatch] = field(default_factory=list)
    scalers: list[KubernetesScaler] = field(default_factory=list)

    @property
    def not_ready(self) -> str:
        """Why decisions cannot be carried out now; empty where they can."""
        if not self.watches:
            return "the bus has not been reached yet"
        if not all(channel.connected for channel in self.channels):
            return "the bus is away"
        return next((f"{one.watched.deployment}: {one.unknown}" for one in self.watches if one.unknown), "")

    def page(self) -> bytes:
        """The metrics as text in Prometheus' format."""
        return metrics_page(ChannelMetrics(*self.channels), SecondWriterMetrics(*self.scalers))


async def _run(settings: KubernetesFile) -> int:
    from agent.connectors.kubernetes.cluster_client import NoClusterError

    view = KubernetesView()
    try:
        return await run_until_signal({"connector": carry_out(settings, view), **pages(settings.http, view, view.page)})
    except NoClusterError as error:
        raise UsageError(str(error)) from error


async def carry_out(settings: KubernetesFile, view: KubernetesView) -> None:
    """Carry decisions out until cancelled. Raises NoClusterError."""
    from agent.connectors.kubernetes.cluster_client import ClusterClient

    named = settings.deployment or f"{len(settings.deployments)}-deployments"
    async with await ClusterClient.open(settings.kubeconfig) as cluster:
        bus = await connected(settings.nats.model_copy(update={"name": f"wattscale-connector-{named}"}))
        try:
            await _scaling(cluster, bus, settings, view)
        finally:
            await bus.close()


async def _scaling(cluster: ClusterClient, bus: Bus, settings: KubernetesFile, view: KubernetesView) -> None:
    from agent.connectors.kubernetes.graph_restarter import GraphRestarter
    from agent.connectors.kubernetes.scaler import KubernetesScaler

    name = settings.name or f"kubernetes on {socket.gethostname()}"
    watched = settings.watched()
    shared = SharedWatches(cluster, watched, annotate=settings.annotate, restart=settings.restart_graphs)
    events = ScalingEvents(cluster)
    telemetry = NodeTelemetryWatch(bus)
    parts: dict[str, Part] = {"telemetry": telemetry.run}
    for number, one in enumerate(shared.watches.values()):
        parts[f"watch {number} {one.collection.path}"] = one.run
    for pools in watched:
        known = functools.partial(_pools, pools)
        channel = ScalingChannel(bus, pools.deployment, name, known)
        watch = PoolWatch(shared, telemetry, pools, settings.view_settings(), channel.changed.set)
        scaler = KubernetesScaler(cluster, channel, watch, events, overwrite=settings.second_writer == "loses")
        parts |= {f"decisions of {pools.deployment}": channel.run, f"scaling of {pools.deployment}": scaler.run}
        restarts = asyncio.Event()
        graphs = PoolWatch(shared, telemetry, pools, settings.view_settings(), restarts.set)
        restarter = GraphRestarter(cluster, bus, channel, graphs, events, restarts, allowed=settings.restart_graphs)
        parts[f"restarts of {pools.deployment}"] = restarter.run
        view.channels.append(channel)
        view.watches.append(watch)
        view.scalers.append(scaler)
    if settings.annotate:
        parts |= _annotating(cluster, bus, settings, shared, telemetry, events)
    targets = settings.claimed_targets(cluster.address)
    async with claimed(bus, this_process(name), targets, settings.claim_ttl_s) as claims:
        await run_together({**{part: run() for part, run in parts.items()}, "claims": claims.keep()})


def _annotating(
    cluster: ClusterClient,
    bus: Bus,
    settings: KubernetesFile,
    shared: SharedWatches,
    telemetry: NodeTelemetryWatch,
    events: ScalingEvents,
) -> dict[str, Part]:
    """What writes the power limits of all deployments."""
    from agent.connectors.kubernetes.power_annotator import LowersFirst, PowerAnnotator

    lowers, parts = LowersFirst(settings.annotate_settle_s), dict[str, Part]()
    for pools in settings.watched():
        changed = asyncio.Event()
        watch = PoolWatch(shared, telemetry, pools, settings.view_settings(), changed.set)
        planned = PlannedPower(bus, pools.deployment, settings.annotate_settle_s, changed.set)
        overwrite = settings.second_writer == "loses"
        annotator = PowerAnnotator(cluster, watch, planned, events, lowers, changed, overwrite=overwrite)
        parts |= {f"plans of {pools.deployment}": planned.run, f"limits of {pools.deployment}": annotator.run}
    return parts


def _pools(watched: WatchedPools) -> set[str] | None:
    """The pools that decisions may name; None: any, for a graph's components are not known by the settings."""
    return set(watched.targets) or None
