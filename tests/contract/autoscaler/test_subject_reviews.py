"""SubjectAccessReview on the double and on a real API server: who may list an external metric."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agent.adapters.kubernetes.api import ApiError
from agent.connectors.autoscaler.external_metrics_api import REVIEWS
from agent.core.scaling.autoscaler.front_proxy import Identity, access_review
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import RBAC, ApiServer, api_server

GROUP, METRIC = "external.metrics.k8s.io", "wattscale-decode"


@pytest.fixture(params=["double", "real"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[ApiServer]:
    async with api_server(request.param) as found:
        yield found


async def allowed(server: ApiServer, who: Identity, metric: str = METRIC) -> bool:
    review = await server.api.post(REVIEWS, access_review(who, server.namespace if metric else "", metric))
    return review["status"]["allowed"] is True


async def test_a_user_may_list_a_metric_once_a_role_gives_it(server: ApiServer) -> None:
    user = Identity(f"{server.mark}-reader", ("system:authenticated",))
    assert not await allowed(server, user)
    home, meta = f"{RBAC}/namespaces/{server.namespace}", {"name": f"{server.mark}-metrics"}
    rules = [{"apiGroups": [GROUP], "resources": [METRIC], "verbs": ["list"]}]
    await server.make(f"{home}/roles", {"metadata": meta, "rules": rules})
    subject = {"kind": "User", "name": user.user, "apiGroup": "rbac.authorization.k8s.io"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": meta["name"]}
    await server.make(f"{home}/rolebindings", {"metadata": meta, "subjects": [subject], "roleRef": reference})
    # A real server's authoriser sees a new role after a moment.
    await until(lambda: allowed(server, user), "the role to be in force")
    assert not await allowed(server, user, "wattscale-prefill")
    assert not await allowed(server, Identity(f"{server.mark}-other", user.groups))


async def test_masters_may_read_everything_and_the_authenticated_the_discovery(server: ApiServer) -> None:
    assert await allowed(server, Identity("system:kube-aggregator", ("system:masters",)), "")
    assert await allowed(server, Identity("admin", ("system:masters",)))
    assert await allowed(server, Identity(f"{server.mark}-any", ("system:authenticated",)), "")
    assert not await allowed(server, Identity(f"{server.mark}-any", ("system:unauthenticated",)), "")


async def test_an_account_without_the_right_may_not_ask(server: ApiServer) -> None:
    token = await server.account("nothing")
    async with server.as_account(token) as api:
        with pytest.raises(ApiError) as caught:
            await api.post(REVIEWS, access_review(Identity("anybody"), "", ""))
        assert caught.value.status == 403
