"""A controller that is killed after any write goes on where it was, and two at once repeat nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from agent.adapters.kubernetes.api import ApiError
from agent.connectors.kubernetes.cluster_client import ClusterClient
from deploy.requests.cluster.request_objects import FINALIZER, FORM, UID_LABEL
from deploy.requests.cluster.request_watch import RequestWatch
from tests.command_line import process, wattscale
from tests.contract.bus import until
from tests.contract.requests.request_site import (
    GRAPHS,
    JOBS,
    MAPS,
    NAME,
    NAMESPACE,
    REQUESTS,
    SPEC,
    RequestSite,
    account_file,
    request_site,
)

SERVES = [
    *("Initialized", "ProfilingJobCreated", "SpecGenerated", "DeploymentCreated", "DeploymentReady"),
]
IMAGE = ("--image", "wattscale/planner:1")
STARTS_S = 180.0
"""A process that imports the client library, beside many others on few cores."""


class Killed(Exception):  # noqa: N818 - not an error of the program
    """The process is gone."""


class LastWrite(ClusterClient):
    """After each write that was done, whoever made it is killed."""

    async def send(
        self,
        method: Literal["POST", "PUT", "PATCH", "DELETE"],
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        await super().send(method, path, body, query)
        raise Killed(f"{method} {path}")


async def go_on(site: RequestSite, cluster: ClusterClient) -> int:
    """Controller after controller, until one has nothing to write. Returns how many were killed."""
    for killed in range(40):
        try:
            await site.controller(cluster).carry_out(NAME)
        except Killed:
            continue
        return killed
    raise AssertionError("there is no end")


async def test_killed_after_every_single_write_it_does_all_once(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site, await LastWrite.open(account_file(tmp_path, site.double.url)) as mortal:
        await site.request(autoApply=True)
        deaths = await go_on(site, mortal)
        await site.ends(1)
        deaths += await go_on(site, mortal)
        await site.graph_is("successful")
        deaths += await go_on(site, mortal)
        assert (site.stage(), site.reasons()) == ("Deployed", SERVES)
        assert (site.names(JOBS), site.names(GRAPHS)) == ([f"profile-{NAME}-tp1"], [NAME])
        assert deaths >= 15, "finalizer, events, statuses, Job, ConfigMaps and graph"
        await site.delete()
        await go_on(site, mortal)
        assert (site.names(REQUESTS), site.names(JOBS), site.names(MAPS)) == ([], [], [])
        assert site.reasons() == [*SERVES, "Deleting"]


async def test_two_controllers_at_once_do_all_once(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request(autoApply=True)
        both = [site.controller(site.cluster) for _ in range(2)]

        async def settle() -> None:
            while any(await asyncio.gather(*(conflicts(one) for one in both))):
                pass

        async def conflicts(one: RequestWatch) -> bool:
            try:
                await one.carry_out(NAME)
            except ApiError as error:
                if error.status != 409:
                    raise
                return True
            return False

        await settle()
        await site.ends(1)
        await settle()
        await site.graph_is("successful")
        await settle()
        assert (site.stage(), site.reasons()) == ("Deployed", SERVES)
        assert (site.names(JOBS), site.names(GRAPHS)) == ([f"profile-{NAME}-tp1"], [NAME])


@asynccontextmanager
async def watching(site: RequestSite, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command as a process; killed when the block ends, where it still runs."""
    words = ("request", "watch", "--namespace", NAMESPACE, "--kubeconfig", str(site.folder / "kubeconfig.json"), *IMAGE)
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", *words, "--port", "none", *more)
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


async def test_a_killed_process_goes_on_where_it_was(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request(autoApply=True)
        async with watching(site) as first:
            await until(lambda: site.names(JOBS), "the first controller made the Job", STARTS_S)
            os.kill(first.pid, signal.SIGKILL)
            await first.wait()
        await site.ends(1)
        async with watching(site) as second:
            await until(lambda: site.names(GRAPHS), "the second one made the graph", STARTS_S)
            await site.graph_is("successful")
            await until(lambda: site.stage() == "Deployed", "the change of the graph is seen", STARTS_S)
            assert site.reasons() == SERVES
            await site.delete()
            await until(lambda: not site.names(REQUESTS), "the request is released", STARTS_S)
            assert (site.names(JOBS), site.names(MAPS), site.names(GRAPHS)) == ([], [], [NAME])
            second.terminate()
            assert await asyncio.wait_for(second.wait(), 60) == 0


async def test_a_server_that_is_away_is_waited_for_and_a_broken_request_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with request_site(tmp_path) as site:
        held = {"name": "broken", "namespace": NAMESPACE, "finalizers": [FINALIZER]}
        broken = await site.double.put(*REQUESTS, {"metadata": held, "spec": SPEC})
        labels = {UID_LABEL: broken["metadata"]["uid"]}
        meta = {"name": "dgdr-output-broken", "namespace": NAMESPACE, "labels": labels, "annotations": {FORM: "x"}}
        await site.double.put(*MAPS, {"metadata": meta, "data": {"x": "{"}})
        await site.request()
        await site.double.stop()
        running = asyncio.create_task(site.watch.run())
        try:
            await until(lambda: caplog.records, "it was asked in vain")
            await site.double.start_again()
            await until(lambda: site.names(JOBS), "the Job is made")
            await site.double.stop()
            await site.double.start_again()
            await site.ends(1)
            await until(lambda: site.stage() == "Ready", "it goes on")
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert site.reasons() == SERVES[:3]
        assert "broken cannot be carried out" in caplog.text


async def test_a_job_uploads_its_profile_and_refuses_half_of_one(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request()
        await site.step()
        name = f"profile-{NAME}-tp1"
        where = ("--namespace", NAMESPACE, "--config-map", name, "--kubeconfig", str(tmp_path / "kubeconfig.json"))
        done = await process("request", "upload", "--results", str(site.profile(1)), *where, timeout_s=STARTS_S)
        assert done.code == 0, done.err
        assert set(site.map(name)["data"]) == {"prefill_raw_data.json", "decode_raw_data.json", "meta.json"}
        (site.profile(1) / "decode_raw_data.json").write_text("{")
        refused = await wattscale("request", "upload", "--results", str(site.profile(1)), *where)
        assert refused.code == 2
        assert "decode_raw_data.json: cannot be read as JSON" in refused.one_line()


async def test_a_cluster_without_the_kind_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.double.remove(
            "apiextensions.k8s.io", "customresourcedefinitions", "", "inferencepowerrequests.wattscale.io"
        )
        words = ("--namespace", NAMESPACE, "--kubeconfig", str(tmp_path / "kubeconfig.json"), "--port", "none")
        done = await process("request", "watch", *words, *IMAGE, timeout_s=STARTS_S)
        assert done.code == 1
        assert "install the chart with requests.enabled" in done.one_line()
