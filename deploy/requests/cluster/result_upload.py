"""`wattscale request upload`: what a profiling Job does last. Writes the profile into the ConfigMap made for it."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from agent.adapters.kubernetes.api import ApiError
from bus_schemas.jetstream.tasks.backoff import Backoff
from bus_schemas.regular_files import read_regular
from deploy.cli.errors import CliError, UsageError
from deploy.requests.cluster.request_objects import CORE, path
from planner.adapters.profiles import ProfileError, load_profile
from planner.profiler.requests.generated.config_maps import RESULT_FILES

if TYPE_CHECKING:
    from agent.connectors.kubernetes.cluster_client import ClusterClient

log = logging.getLogger("wattscale.requests")
MOST_BYTES = 1_000_000
"""Of all files together; a ConfigMap holds 1 MiB, and a profile has a few kilobytes."""
TRIES = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
NEVER = (400, 401, 403, 404, 413, 422)


def read_results(folder: Path) -> dict[str, str]:
    """The files of a profile, which can be loaded. Raises UsageError and CliError."""
    try:
        load_profile(folder)
        files = {name: read_regular(folder / name, MOST_BYTES).decode("utf-8") for name in RESULT_FILES}
    except ProfileError as error:
        raise UsageError(f"--results: {error}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"--results {folder}: cannot be read: {error}") from error
    if (size := sum(len(text.encode()) for text in files.values())) > MOST_BYTES:
        raise CliError(f"--results {folder}: {size} bytes; a ConfigMap holds {MOST_BYTES}. Profile fewer points")
    return files


async def upload(cluster: ClusterClient, namespace: str, name: str, files: dict[str, str]) -> None:
    """Write them into a ConfigMap that is there. An hour of profiling is not lost to a server that is away for a while.

    Raises CliError.
    """
    backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
    for left in reversed(range(TRIES)):
        try:
            await cluster.send("PATCH", path(CORE, namespace, "configmaps", name), {"data": files})
        except ApiError as error:
            if error.status in NEVER or not left:
                raise CliError(f"ConfigMap {namespace}/{name} cannot be written: {error}") from error
            log.warning("%s; trying again", error)
        else:
            return
        await asyncio.sleep(backoff.next_s())


def run_upload(results: Path, namespace: str, name: str, kubeconfig: Path | None) -> int:
    """Returns 0. Raises UsageError and CliError."""
    from agent.connectors.kubernetes.cluster_client import ClusterClient, NoClusterError

    files = read_results(results)

    async def run() -> None:
        async with await ClusterClient.open(kubeconfig) as cluster:
            await upload(cluster, namespace, name, files)

    try:
        asyncio.run(run())
    except NoClusterError as error:
        raise CliError(str(error)) from error
    print(f"ConfigMap {namespace}/{name}: {', '.join(files)}")
    return 0
