"""The chart's controller: its roles hold every right that it and its Jobs ask for, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from agent.adapters.kubernetes.api import ApiError
from agent.connectors.kubernetes.cluster_client import ClusterClient
from deploy.cli.main import build_parser
from deploy.requests.cluster.request_actions import RequestActions
from deploy.requests.cluster.request_watch import RequestWatch
from deploy.requests.cluster.result_upload import read_results, upload
from tests.contract.bus import until
from tests.contract.requests.request_site import (
    DEFINITION,
    GRAPHS,
    JOBS,
    NAME,
    NAMESPACE,
    PLACE,
    REQUESTS,
    RequestSite,
    account_file,
    request_site,
)
from tests.doubles.kubernetes import VERBS
from tests.doubles.kubernetes_parts.answers import target_of
from tests.integration.chart.pod_security import breaches
from tests.integration.chart.rendered import Rendered, Right, rendered, rights

pytestmark = pytest.mark.xdist_group("chart")
RBAC = "rbac.authorization.k8s.io"
NOT_ASKED: set[Right] = {("update", "wattscale.io", "inferencepowerrequests/finalizers")}
"""Admission asks for it, in clusters that protect owners."""
OF_OTHERS: set[Right] = {
    ("create", *REQUESTS),
    ("delete", *REQUESTS),
    ("patch", "", "configmaps"),
}
"""The user's and the Job's; the controller has none of them, and would be refused."""


def release() -> Rendered:
    """The chart with the controller switched on, for requests in another namespace than its own."""
    return rendered("minimal", extra=("--set", f"requests.enabled=true,requests.namespace={NAMESPACE}"))


@asynccontextmanager
async def account(site: RequestSite, end: str) -> AsyncIterator[ClusterClient]:
    """A client with the chart's rights for one of its accounts."""
    found = release().one("ServiceAccount", end)
    home = found["metadata"].setdefault("namespace", "power")
    await site.double.put("", "serviceaccounts", found)
    for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        for one in release().of(kind, end):
            await site.double.put(RBAC, f"{kind.lower()}s", one)
    where = f"/api/v1/namespaces/{home}/serviceaccounts/{found['metadata']['name']}/token"
    token = (await site.cluster.send("POST", where, {"spec": {}}))["status"]["token"]
    async with await ClusterClient.open(account_file(site.folder, site.double.url, token)) as cluster:
        yield cluster


def given(end: str) -> set[Right]:
    """The rights of an account in the chart."""
    return {right for kind in ("Role", "ClusterRole") for one in release().of(kind, end) for right in rights(one)}


def asked(requests: list[tuple[str, str]]) -> set[Right]:
    """The rights that requests need."""
    found = set()
    for method, address in requests:
        target, query = target_of(urlsplit(address).path), parse_qs(urlsplit(address).query)
        verb = VERBS.get(method) or ("get" if target.name else "watch" if "watch" in query else "list")
        found.add((verb, target.group, f"{target.resource}/{target.sub}" if target.sub else target.resource))
    return found


async def carried_out(site: RequestSite, made: tuple[str, str], *, fail: bool) -> set[Right]:
    """The rights that a request needs from its first step to its deletion, with the controller's account."""
    async with account(site, "-requests") as cluster:
        before = len(site.double.requests)
        await site.request(autoApply=True)
        watch = RequestWatch(cluster, NAMESPACE, RequestActions(cluster, PLACE))
        running = asyncio.create_task(watch.run())
        try:
            await until(lambda: site.names(JOBS), "the Job is made")
            await (site.fails(1, "no") if fail else site.ends(1))
            await until(lambda: site.stage() == "Failed" if fail else site.names(made), "it has gone on")
            await site.delete()
            await until(lambda: not site.names(REQUESTS), "it is released")
            assert not watch.not_ready
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    return asked(site.double.requests[before:]) - OF_OTHERS


async def test_the_controllers_roles_have_every_right_that_it_asks_for_and_no_other(tmp_path: Path) -> None:
    used: set[Right] = set()
    for made, fail in ((GRAPHS, False), (("apps", "deployments"), False), (GRAPHS, True)):
        folder = tmp_path / f"{made[1]}-{fail}"
        folder.mkdir()
        async with request_site(folder, dynamo=made == GRAPHS) as site:
            used |= await carried_out(site, made, fail=fail)
    assert given("-requests") - NOT_ASKED == used


async def test_a_jobs_account_may_fill_a_config_map_and_nothing_else(tmp_path: Path) -> None:
    assert given("-profiler") == {("patch", "", "configmaps")}
    async with request_site(tmp_path) as site, account(site, "-profiler") as cluster:
        await site.request()
        await site.step()
        await upload(cluster, NAMESPACE, f"profile-{NAME}-tp1", read_results(site.profile(1)))
        with pytest.raises(ApiError, match="forbidden"):
            await cluster.get(f"/api/v1/namespaces/{NAMESPACE}/configmaps")


def test_ranking_candidates_lists_dynamos_searches_and_adds_no_other_right() -> None:
    found = rendered("minimal", extra=("--set", "requests.enabled=true,requests.rankCandidates=true"))
    given_now = {right for one in found.of("Role", "-requests") for right in rights(one)}
    before = {right for one in release().of("Role", "-requests") for right in rights(one)}
    kinds = ("dynamographdeploymentruns", "dynamographdeploymentcandidates")
    assert given_now - before == {("list", "nvidia.com", kind) for kind in kinds}
    (container,) = found.one("Deployment", "-requests")["spec"]["template"]["spec"]["containers"]
    assert build_parser("request").parse_args(container["args"]).rank_candidates


def test_it_is_off_by_default_and_restricted_where_it_is_on() -> None:
    assert not rendered("minimal").of("Deployment", "-requests")
    assert not rendered("minimal").of("CustomResourceDefinition")
    found = release()
    assert found.one("CustomResourceDefinition") == yaml.safe_load(DEFINITION.read_text())
    pod = found.one("Deployment", "-requests")["spec"]["template"]["spec"]
    assert breaches(pod) == []
    (container,) = pod["containers"]
    args = build_parser("request").parse_args(container["args"])
    assert (args.namespace, args.port) == (NAMESPACE, "9102")
    assert args.service_account == found.one("ServiceAccount", "-profiler")["metadata"]["name"]
    assert args.image == container["image"]
    shared = rendered("minimal", extra=("--set", "requests.enabled=true,requests.definition=false"))
    assert not shared.of("CustomResourceDefinition")
