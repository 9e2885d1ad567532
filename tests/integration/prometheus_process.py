"""A real Prometheus on a free port, scraping what a test gives it, gone when the test ends."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.free_ports import free_port

READY_S = 60.0


def prometheus_binary() -> str:
    """Path of the server, or a skip with the reason; a failure where CI promises the part."""
    path = shutil.which("prometheus")
    if path is None:
        reason = "no prometheus on this machine (Debian package prometheus)"
        if os.environ.get("WATTSCALE_REQUIRE_PARTS"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@asynccontextmanager
async def prometheus(
    folder: Path,
    targets: Mapping[str, str],
    *,
    web_config: Path | None = None,
    every: str = "250ms",
    port: int | None = None,
    labels: Mapping[str, str] | None = None,
) -> AsyncIterator[str]:
    """The base URL of a Prometheus that scrapes ``targets`` (job name: host:port) four times a second.

    ``port``: for one that comes back at its address; otherwise a free one. ``labels``: of every series, as relabelling
    gives them.
    """
    config = {
        "global": {"scrape_interval": every, "scrape_timeout": every},
        "scrape_configs": [
            {
                "job_name": job,
                "honor_labels": True,
                "static_configs": [{"targets": [target], "labels": dict(labels or {})}],
            }
            for job, target in targets.items()
        ],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{port or free_port()}"
    command = [
        prometheus_binary(),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
        *([f"--web.config.file={web_config}"] if web_config else []),
    ]
    process = await asyncio.create_subprocess_exec(*command, cwd=folder)
    scheme = "https" if web_config else "http"
    try:
        await _ready(f"{scheme}://{address}/-/ready", process)
        yield f"{scheme}://{address}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _ready(url: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(READY_S), aiohttp.ClientSession() as session:
        while True:
            assert process.returncode is None, "prometheus ended while starting"
            try:
                async with session.get(url, ssl=False) as response:
                    if response.status in {200, 401}:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)
