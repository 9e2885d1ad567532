"""Accounts of the chart on a server for tests, with exactly the rights that the chart gives them."""

from __future__ import annotations

import copy

from agent.adapters.kubernetes.api import ApiError
from tests.contract.kubernetes.api_server import RBAC, ApiServer
from tests.integration.chart.rendered import NAMESPACE, Rendered


async def chart_account(server: ApiServer, release: Rendered, end: str) -> str:
    """The token of the release's account whose name ends in ``end``. Call the release by ``server.mark``."""
    account = copy.deepcopy(release.one("ServiceAccount", end))
    home = account["metadata"].setdefault("namespace", NAMESPACE)
    try:
        await server.api.post("/api/v1/namespaces", {"metadata": {"name": home}})
    except ApiError as error:
        if error.status != 409:
            raise
    accounts = f"/api/v1/namespaces/{home}/serviceaccounts"
    await server.make(accounts, account)
    for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        for one in release.of(kind):
            subjects = one.get("subjects") or release.one(f"{kind}Binding", one["metadata"]["name"])["subjects"]
            if account["metadata"]["name"] not in [subject["name"] for subject in subjects]:
                continue
            where = "" if kind.startswith("Cluster") else f"namespaces/{one['metadata'].get('namespace', NAMESPACE)}/"
            await server.make(f"{RBAC}/{where}{kind.lower()}s", copy.deepcopy(one))
    answer = await server.api.post(f"{accounts}/{account['metadata']['name']}/token", {"spec": {}})
    token: str = answer["status"]["token"]
    return token
