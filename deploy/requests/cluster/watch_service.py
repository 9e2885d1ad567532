"""Composes `wattscale request watch` from its options, and runs it until a signal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from agent.adapters.kubernetes.access import SERVICE_ACCOUNT
from agent.connectors.connector_file import ConnectorHttpSection
from bus_schemas.jetstream.tasks.task_group import run_together
from bus_schemas.regular_files import SECRET_BYTES, read_regular
from deploy.cli.errors import UsageError
from deploy.compose.connectors.connector_process import log_to_stderr, metrics_page, pages, run_until_signal
from deploy.requests.cluster.candidate_rankings import CandidateRankings
from deploy.requests.cluster.request_actions import ClusterPlace, RequestActions
from deploy.requests.cluster.request_watch import RequestWatch


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """``namespace`` None: that of the pod. ``http`` without a port: no pages."""

    namespace: str | None
    kubeconfig: Path | None
    place: ClusterPlace
    http: ConnectorHttpSection
    log_level: str
    ranks_candidates: bool


@dataclass(slots=True)
class WatchPages:
    """What the pages show."""

    watches: list[RequestWatch] = field(default_factory=list)

    @property
    def not_ready(self) -> str:
        """Why requests are not carried out now; empty where they are."""
        return self.watches[0].not_ready if self.watches else "the cluster has not been reached yet"


def run_watch(options: WatchOptions) -> int:
    """Carry requests out until SIGTERM or SIGINT. Returns 0. Raises UsageError and CliError."""
    from agent.connectors.kubernetes.cluster_client import NoClusterError

    namespace = options.namespace or _own_namespace()
    log_to_stderr(options.log_level)
    view = WatchPages()
    parts = {"requests": _carry_out(options, namespace, view), **pages(options.http, view, metrics_page)}
    try:
        return asyncio.run(run_until_signal(parts))
    except NoClusterError as error:
        raise UsageError(str(error)) from error


async def _carry_out(options: WatchOptions, namespace: str, view: WatchPages) -> None:
    from agent.connectors.kubernetes.cluster_client import ClusterClient

    async with await ClusterClient.open(options.kubeconfig) as cluster:
        watch = RequestWatch(cluster, namespace, RequestActions(cluster, options.place))
        view.watches.append(watch)
        parts = {"requests": watch.run()}
        if options.ranks_candidates:
            parts["candidates"] = CandidateRankings(cluster, namespace).run()
        await run_together(parts)


def _own_namespace() -> str:
    try:
        return read_regular(SERVICE_ACCOUNT / "namespace", SECRET_BYTES).decode("utf-8").strip()
    except (OSError, ValueError) as error:
        raise UsageError("--namespace NAME is missing: outside a pod, name the namespace to watch") from error
