"""The chart before a real API server: what it admits, and what its authoriser lets each account of the chart do.

Skipped by name where no server is given (`tests/README.md`). Kinds that a server older than the chart's ``kubeVersion``
does not serve are left out.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from agent.adapters.kubernetes.api import ApiError
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import RBAC, ApiServer, api_server
from tests.doubles.kubernetes_parts.rbac import GROUP, AccessQuestion, account_user, allowed
from tests.integration.chart.rendered import CASES, NAMESPACE, Manifest, Rendered, Right, rendered, rights

pytestmark = pytest.mark.xdist_group("chart")
OLDEST = (1, 29)
"""Of the chart's ``kubeVersion``."""
FIRST_WITH_POD_SECURITY = (1, 23)
ACCESS_KINDS = ("ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
NOBODYS: set[Right] = {
    ("get", "", "secrets"),
    ("list", "", "secrets"),
    ("create", "", "pods"),
    ("create", "", "pods/exec"),
    ("delete", "", "pods"),
    ("patch", "", "nodes"),
    ("patch", "apps", "deployments"),
    ("create", GROUP, "clusterrolebindings"),
    ("*", "*", "*"),
}
"""Rights that no part of the product needs."""


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with api_server("real") as found:
        yield found


async def collection(server: ApiServer, one: Manifest) -> str:
    """The path under which objects of this kind and namespace are; empty where the server does not serve the kind."""
    root = f"/apis/{one['apiVersion']}" if "/" in one["apiVersion"] else f"/api/{one['apiVersion']}"
    try:
        listed = (await server.api.get(root))["resources"]
    except ApiError as error:
        if error.status != 404:
            raise
        return ""
    for found in listed:
        if found["kind"] == one["kind"] and "/" not in found["name"]:
            home = f"/namespaces/{home_of(one)}" if found["namespaced"] else ""
            return f"{root}{home}/{found['name']}"
    return ""


def home_of(one: Manifest) -> str:
    """The namespace that an object of the release lies in."""
    return str(one["metadata"].get("namespace") or NAMESPACE)


async def apply(server: ApiServer, one: Manifest, **query: str) -> dict[str, Any]:
    """Server-side apply, as `helm` and `kubectl apply --server-side` do. Raises ApiError."""
    name = one["metadata"]["name"]
    return await server.api.send(
        "PATCH",
        f"{await collection(server, one)}/{name}",
        query={"fieldManager": "helm", "force": "true", "fieldValidation": "Strict", **query},
        body=one,
        content_type="application/apply-patch+yaml",
    )


async def create(server: ApiServer, one: Manifest, **query: str) -> dict[str, Any]:
    """A new object, as Helm 3 makes one. Raises ApiError."""
    return await server.api.send("POST", await collection(server, one), query=query, body=one)


async def make_namespaces(server: ApiServer, release: Rendered) -> None:
    """Those that the release's objects lie in."""
    for name in {home_of(one) for one in release.manifests}:
        await apply(server, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})


@pytest.mark.parametrize("case", CASES)
async def test_every_manifest_is_admitted(server: ApiServer, case: str) -> None:
    """Created as Helm 3 does; applied as Helm 4 does, where the server knows a port's default."""
    release = rendered(case, extra=("--set", "requests.enabled=true"))
    await make_namespaces(server, release)
    ways = (create, apply) if server.version >= OLDEST else (create,)
    refused, unserved = [], set()
    for one in release.manifests:
        if not await collection(server, one):
            unserved.add((one["apiVersion"], one["kind"]))
            continue
        for way in ways:
            try:
                await way(server, one, dryRun="All")
            except ApiError as error:
                refused.append(f"{way.__name__} {one['kind']} {one['metadata']['name']}: {error}")
    assert refused == []
    custom = {(group, kind) for group, kind in unserved if "." in group and ".k8s.io/" not in group}
    if server.version >= OLDEST:
        assert unserved == custom


@pytest.mark.parametrize("case", CASES)
async def test_a_namespace_that_is_restricted_takes_every_pod_but_the_agents(server: ApiServer, case: str) -> None:
    server.skip_before(FIRST_WITH_POD_SECURITY, "PodSecurity")
    home = f"{server.mark}-restricted"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    await server.api.post("/api/v1/namespaces", {"metadata": {"name": home, "labels": labels}})
    refused: dict[str, str] = {}
    for component, template in rendered(case).pods():
        pod = copy.deepcopy(template)
        pod["metadata"] = {"name": component}
        try:
            await server.api.send("POST", f"/api/v1/namespaces/{home}/pods", query={"dryRun": "All"}, body=pod)
        except ApiError as error:
            refused[component] = str(error)
    assert set(refused) <= {"agent"}
    assert all("violates PodSecurity" in why for why in refused.values())


@pytest.mark.parametrize("case", CASES)
async def test_each_account_may_do_what_its_roles_give_and_nothing_else(server: ApiServer, case: str) -> None:
    release = rendered(case, release=server.mark, extra=("--set", "requests.enabled=true"))
    await make_namespaces(server, release)
    given = [copy.deepcopy(one) for kind in ACCESS_KINDS for one in release.of(kind)]
    for one in given:
        await apply(server, one)
        if one["kind"] in ("Role", "RoleBinding", "ServiceAccount"):
            one["metadata"]["namespace"] = home_of(one)

    def stored(group: str, resource: str) -> list[Manifest]:
        return [one for one in given if group == GROUP and f"{one['kind'].lower()}s" == resource]

    try:
        for account in (one for one in given if one["kind"] == "ServiceAccount"):
            await _judged(server, account, list(_questions(account, given)), stored)
    finally:
        for one in given:
            if one["kind"].startswith("Cluster"):
                await server.api.send("DELETE", f"{RBAC}/{one['kind'].lower()}s/{one['metadata']['name']}")


def _questions(account: Manifest, given: list[Manifest]) -> Iterator[AccessQuestion]:
    """Every right of the release in every namespace of it, with each name that a rule has and with another."""
    user = account_user(home_of(account), account["metadata"]["name"])
    roles = [one for one in given if one["kind"] in ("Role", "ClusterRole")]
    names = {name for role in roles for rule in role["rules"] for name in rule.get("resourceNames", ())}
    for verb, group, resource in sorted(NOBODYS.union(*map(rights, roles))):
        for home in sorted({"", NAMESPACE, *map(home_of, given)}):
            for name in sorted({"", "another", *names}):
                yield AccessQuestion(user, verb, group, resource, home, name)


async def _judged(server: ApiServer, account: Manifest, questions: list[AccessQuestion], stored: Any) -> None:
    """The server's authoriser answers each question as the roles read, which the double reads in the same way."""
    place = f"/api/v1/namespaces/{home_of(account)}/serviceaccounts/{account['metadata']['name']}/token"
    token = (await server.api.post(place, {"spec": {}}))["status"]["token"]
    wanted = {one: allowed(one, stored) for one in questions}
    async with server.as_account(token) as api:

        async def answer(one: AccessQuestion) -> bool:
            resource, _, sub = one.resource.partition("/")
            about = {"namespace": one.namespace, "verb": one.verb, "group": one.group, "name": one.name}
            spec = {"resourceAttributes": {**about, "resource": resource, "subresource": sub}}
            return bool((await api.post(REVIEWS, {"spec": spec}))["status"]["allowed"])

        for one, may in wanted.items():
            if may:
                # The authoriser sees a new role after a moment.
                await until(functools.partial(answer, one), f"{one} to be allowed")
        assert [one for one, may in wanted.items() if await answer(one) != may] == []
