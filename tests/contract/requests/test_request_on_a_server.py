"""`wattscale request watch` with the chart's account, on the double and on a real API server, from start to removal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")

from agent.adapters.kubernetes.api import ApiError
from agent.connectors.kubernetes.cluster_client import ClusterClient
from deploy.cli.errors import CliError
from deploy.requests.cluster.request_actions import RequestActions
from deploy.requests.cluster.request_watch import RequestWatch
from deploy.requests.cluster.result_upload import read_results, upload
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import DEFINITIONS, ApiServer, api_server, merge
from tests.contract.kubernetes.chart_accounts import chart_account
from tests.contract.kubernetes.operators.graph_operator import GROUP as DYNAMO
from tests.contract.kubernetes.operators.reconciling import FAST
from tests.contract.requests.request_site import DEFINITION, NAME, PLACE, SPEC, profile_folder
from tests.integration.chart.rendered import Rendered, rendered
from tests.kubeconfig_file import kubeconfig
from tests.tools.kube_apiserver import kube_apiserver

pytestmark = pytest.mark.xdist_group("chart")
OURS = ("wattscale.io", "v1alpha1", "inferencepowerrequests")
GRAPHS = (DYNAMO, "v1beta1", "dynamographdeployments")
FIRST_WITH_SIDECARS = (1, 29)
JOBS, MAPS = ("batch", "v1", "jobs"), ("", "v1", "configmaps")


class RequestServer:
    """A namespace with our definition, Dynamo's graphs and one node with GPUs; everything through the API."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.server, self.folder = server, folder

    @property
    def release(self) -> Rendered:
        """The chart with the controller for this namespace."""
        values = f"requests.enabled=true,requests.namespace={self.server.namespace}"
        return rendered("minimal", release=self.server.mark, extra=("--set", values))

    async def install(self) -> None:
        """What is there before the first request."""
        await self.server.install(DEFINITIONS, yaml.safe_load(DEFINITION.read_text()))
        await self.server.served(self.server.path(*OURS))
        await self.server.define(DYNAMO, GRAPHS[2], "DynamoGraphDeployment", "v1beta1", "v1alpha1", scale=False)
        labels = {"nvidia.com/gpu.product": "NVIDIA-H200"}
        node = await self.server.make(
            "/api/v1/nodes", {"metadata": {"name": f"{self.server.mark}-n", "labels": labels}}
        )
        ready = {"type": "Ready", "status": "True"}
        status = {"allocatable": {"nvidia.com/gpu": "8", "cpu": "64"}, "conditions": [ready]}
        await merge(self.server.api, f"/api/v1/nodes/{node['metadata']['name']}/status", {"status": status})

    @asynccontextmanager
    async def client(self, token: str) -> AsyncIterator[ClusterClient]:
        """As one account."""
        file = kubeconfig(self.folder / f"kubeconfig-{token[-12:]}", self.server.api.access.server, token)
        async with await ClusterClient.open(file) as cluster:
            yield cluster

    async def request(self, **spec: Any) -> None:
        """Make the request, as its user does."""
        body = {
            "apiVersion": "wattscale.io/v1alpha1",
            "kind": "InferencePowerRequest",
            "metadata": {"name": NAME},
            "spec": {**SPEC, **spec},
        }
        await self.server.make(self.server.path(*OURS), body)

    async def stage(self) -> str:
        found = await self.server.api.get(self.server.path(*OURS, NAME))
        return str((found.get("status") or {}).get("stage", ""))

    async def reaches(self, stage: str) -> None:
        async def reached() -> bool:
            return await self.stage() == stage

        await until(reached, f"stage {stage}", 120.0)

    async def names(self, kind: tuple[str, str, str]) -> list[str]:
        listed = await self.server.api.get(self.server.path(*kind))
        return sorted(one["metadata"]["name"] for one in listed["items"])

    async def one_is_made(self, kind: tuple[str, str, str], name: str) -> None:
        async def made() -> bool:
            return name in await self.names(kind)

        await until(made, f"{kind[2]}/{name}", 120.0)

    async def job_is_complete(self, name: str) -> None:
        """As Kubernetes' controller of Jobs reports it."""
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        met, done = (
            {"type": kind, "status": "True", "lastTransitionTime": now} for kind in ("SuccessCriteriaMet", "Complete")
        )
        status = {"startTime": now, "completionTime": now, "succeeded": 1, "conditions": [met, done]}
        await merge(self.server.api, self.server.path(*JOBS, name, "status"), {"status": status})

    async def graph_serves(self) -> None:
        """As Dynamo's operator reports it."""
        graph = await self.server.api.get(self.server.path(*GRAPHS, NAME))
        status = {
            "state": "successful",
            "observedGeneration": graph["metadata"]["generation"],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        await merge(self.server.api, self.server.path(*GRAPHS, NAME, "status"), {"status": status})


@pytest.fixture(params=["double", "real"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RequestServer]:
    async with api_server(request.param) as server:
        found = RequestServer(server, tmp_path)
        await found.install()
        yield found


@asynccontextmanager
async def watched(place: RequestServer) -> AsyncIterator[RequestWatch]:
    """The controller as the chart's account."""
    token = await chart_account(place.server, place.release, "-requests")
    async with place.client(token) as cluster:
        watch = RequestWatch(cluster, place.server.namespace, RequestActions(cluster, PLACE), timing=FAST)
        running = asyncio.create_task(watch.run())
        try:
            yield watch
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def carry_through(place: RequestServer, interrupt: Any) -> None:
    """A request to its end, with ``interrupt`` called before each part that others play."""
    place.server.skip_before(FIRST_WITH_SIDECARS, "sidecar containers")
    job = f"profile-{NAME}-tp1"
    async with watched(place) as watch:
        await place.request(autoApply=True)
        await place.one_is_made(JOBS, job)
        await interrupt()
        token = await chart_account(place.server, place.release, "-profiler")
        async with place.client(token) as profiler:
            await upload(profiler, place.server.namespace, job, read_results(profile_folder(place.folder, 1)))
        await place.job_is_complete(job)
        await place.one_is_made(GRAPHS, NAME)
        await interrupt()
        await place.graph_serves()
        await place.reaches("Deployed")
        await interrupt()
        await place.server.api.send("DELETE", place.server.path(*OURS, NAME))

        async def gone() -> bool:
            return not await place.names(OURS)

        await until(gone, "the request to be released", 120.0)
        assert not watch.not_ready
    assert await place.names(JOBS) == []
    assert [one for one in await place.names(MAPS) if NAME in one] == []


async def test_a_request_is_carried_from_its_first_step_to_its_removal(place: RequestServer) -> None:
    async def nothing() -> None:
        return

    await carry_through(place, nothing)


async def test_a_request_outlives_a_server_that_is_killed_and_forgets_its_history(tmp_path: Path) -> None:
    async with api_server("real") as server:
        own = kube_apiserver()
        if own is None:
            pytest.skip("this API server belongs to somebody else and is not killed")
        place = RequestServer(server, tmp_path)
        await place.install()
        await carry_through(place, lambda: asyncio.to_thread(own.replace))


async def test_without_rights_it_ends_with_one_line(place: RequestServer) -> None:
    token = await place.server.account("nothing")
    async with place.client(token) as cluster:
        watch = RequestWatch(cluster, place.server.namespace, RequestActions(cluster, PLACE), timing=FAST)
        with pytest.raises(CliError, match=r"cannot list in namespace .*forbidden") as caught:
            await asyncio.wait_for(watch.run(), 30)
    assert "\n" not in str(caught.value)


async def test_what_the_controller_may_not_do_is_refused(place: RequestServer) -> None:
    token = await chart_account(place.server, place.release, "-requests")
    async with place.client(token) as cluster:
        for path in (place.server.path("", "v1", "secrets"), "/api/v1/namespaces"):
            with pytest.raises(ApiError) as caught:
                await cluster.get(path)
            assert caught.value.status in (403, 404)
