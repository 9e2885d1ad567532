"""What the guides print, as it stands, behind ``wattscale planner run``: each starts a planner on a real bus."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import connect
from bus_schemas.jetstream.settings import BusSettings
from deploy.nats.embedded import EmbeddedServer
from tests.contract.kubernetes.test_detected_model import account_file
from tests.doubles.kubernetes import KubernetesDouble
from tests.shared_data import ROOT
from tests.unit.planner.adapters.test_profiles import write as write_profile

SLA_DEMO = """--environment=kubernetes --backend=vllm --adjustment-interval=60 --ttft-target=2000 --itl-target=100
--load-predictor=constant --max-prefill-replicas=5 --max-decode-replicas=8 --min-prefill-replicas=1
--min-decode-replicas=2"""
"""Of the SLA planner's demo, with the one of its three predictors that needs no library."""
STANDALONE = "--namespace=dynamo --served-model-name=vllm --no-operation --log-dir={folder}/log"
"""Of the load-based planner's guide: ``python components/planner.py …``."""
GRAPH_FLAGS = "--Planner.environment=local --Planner.no-operation=false --Planner.log-dir={folder}/log"
"""Of the same guide: ``dynamo serve …``."""
WORKERS = {
    "state_folder": "{folder}/state",
    "gpus": ["0"],
    "pools": {"decode": {"command": ["engine", "--port", "{port}"]}, "prefill": {"command": ["engine", "{port}"]}},
}
"""What ``graphs.disagg:Frontend`` is there: how workers are started. No decision is made here, so none is."""
GRAPH_FILE = {"Planner": {"environment": "local", "no-operation": False, "log-dir": "{folder}/log"}}
PLANNER_TABLE = """--adjustment-interval 180 --ttft 500.0 --itl 50.0 --isl 3000 --osl 150 --max-gpu-budget 8
--min-endpoint 1 --decode-engine-num-gpu 1 --prefill-engine-num-gpu 1 --load-predictor kalman
--load-predictor-log1p --kalman-q-level 1 --kalman-q-trend 0.1 --kalman-r 10
--kalman-min-points 5 --prophet-window-size 50"""
"""Of the planner guide's tables, with their defaults."""
VIRTUAL_FILE = {"environment": "virtual", "backend": "vllm"}
REQUEST_FILE = {"planner": {"plannerMinEndpoint": 2}}

CONNECTORS = ("virtual", "kubernetes", "local")

CASES = {
    "001 table": ("planner", PLANNER_TABLE, None),
    "001 virtual": ("planner", "", VIRTUAL_FILE),
    "001 passthrough": ("planner", "", REQUEST_FILE),
    "003 demo": ("planner", SLA_DEMO, None),
    "004 standalone": ("load", STANDALONE, None),
    "004 graph by flags": ("load", GRAPH_FLAGS, None),
    "004 graph by file": ("load", "", GRAPH_FILE),
}


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
async def test_a_printed_command_starts_a_planner(case: str, tmp_path: Path) -> None:
    guide, flags, content = CASES[case]
    arguments = ["--guide-defaults", guide, *flags.format(folder=tmp_path).split()]
    if guide == "planner":
        write_profile(tmp_path)
        arguments += ["--profile-results-dir", str(tmp_path)]
    if "local" in f"{flags} {content}":
        workers = tmp_path / "workers.yaml"
        workers.write_text(yaml.safe_dump(WORKERS).replace("{folder}", str(tmp_path)))
        arguments += ["--set", f"deployments.dynamo.connector_settings={workers}"]
    if content is not None:
        file = tmp_path / "planner.yaml"
        file.write_text(yaml.safe_dump(content).replace("{folder}", str(tmp_path)))
        arguments += ["-c", str(file)]
    async with EmbeddedServer(tmp_path / "nats") as server, cluster(tmp_path) as access:
        bus = await connect(BusSettings(servers=(server.url,)))
        try:
            await stream_admin.apply(bus)
        finally:
            await bus.close()
        meant = next((kind for kind in CONNECTORS if kind in f"{flags} {content}"), "")
        await _led(arguments, server.url, access, f"connector {meant} of dynamo: started: " if meant else "leading")


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Path]:
    """An API server as the guide's cluster, and the file by which the planner reaches it."""
    async with KubernetesDouble() as kube:
        yield account_file(folder, kube.url)


async def _led(arguments: list[str], server: str, access: Path, logged: str) -> None:
    """Run a planner until it leads and has logged this; it is stopped then and ends well."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", "planner", "run", *arguments),
        *("--set", f"bus.servers=[{server}]", "--set", "health.port=none"),
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": str(access), "DYN_PARENT_DGD_K8S_NAME": "vllm-disagg"},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(60.0):
            async for line in process.stderr:
                lines.append(line.decode())
                text = "".join(lines)
                if '"message": "leading"' in text and logged in text:
                    break
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 60) == 0, lines
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
    assert logged in "".join(lines), lines
