"""`wattscale request report`: says in the ConfigMap of a profiling Job's results which part of profiling is under way.

It runs beside the profiler and reads its log, so that the profiler needs no account of the cluster. It never ends a
Job: what cannot be written now is written later.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from agent.adapters.kubernetes.api import ApiError
from bus_schemas.jetstream.tasks.backoff import Backoff
from deploy.cli.errors import CliError
from deploy.compose.connectors.connector_process import log_to_stderr, run_until_signal
from deploy.requests.cluster.request_objects import CORE, REPORTED_PHASE, REPORTING_POD, path
from planner.profiler.analysis.profiling_phase import ProfilingPhase
from planner.profiler.online.measurement_log import logged_phase

if TYPE_CHECKING:
    from agent.connectors.kubernetes.cluster_client import ClusterClient

log = logging.getLogger("wattscale.requests")
POLL_S = 1.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0


async def report(
    cluster: ClusterClient, namespace: str, name: str, pod: str, results: Path, *, poll_s: float = POLL_S
) -> None:
    """Report each change until cancelled. ``pod``: the uid of this pod, by which a report of an earlier one is told."""
    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    written: ProfilingPhase | None = None
    while True:
        phase, pause_s = logged_phase(results), poll_s
        if phase is not written:
            body = {"metadata": {"annotations": {REPORTED_PHASE: phase.value, REPORTING_POD: pod}}}
            try:
                await cluster.send("PATCH", path(CORE, namespace, "configmaps", name), body)
                written, backoff = phase, Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
            except ApiError as error:
                log.warning("phase %s is not reported yet: %s", phase.value, error)
                pause_s = backoff.next_s()
        await asyncio.sleep(pause_s)


def run_report(results: Path, namespace: str, name: str, pod: str, kubeconfig: Path | None) -> int:
    """Report until a signal. Returns 0. Raises CliError where there is no way to a cluster."""
    from agent.connectors.kubernetes.cluster_client import ClusterClient, NoClusterError

    async def run() -> None:
        async with await ClusterClient.open(kubeconfig) as cluster:
            await report(cluster, namespace, name, pod, results)

    log_to_stderr("info")
    try:
        return asyncio.run(run_until_signal({"report": run()}))
    except NoClusterError as error:
        raise CliError(str(error)) from error
