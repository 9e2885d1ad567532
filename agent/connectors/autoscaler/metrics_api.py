"""What KEDA's `metrics-api` scaler asks: one JSON object per pool, and a list of all for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiohttp.web_request import BaseRequest

from agent.connectors.autoscaler.newest_decision import NewestDecision, served
from agent.core.scaling.autoscaler.external_metrics import MetricRefusedError
from agent.core.scaling.autoscaler.pool_address import ROOT, asked_pool
from bus_schemas.v1 import ScalingDecision


class MetricsApi:
    """``GET /v1/deployments/NAME/pools/POOL``; KEDA's ``valueLocation`` is ``replicas``.

    An error has no ``replicas``, and a status of 400 or more. ``notes``: what operators should know.
    """

    def __init__(self, decisions: Mapping[str, NewestDecision], notes: Callable[[], Sequence[str]]) -> None:
        self._decisions = decisions
        self._notes = notes

    async def answer(self, request: BaseRequest) -> Mapping[str, Any]:
        """The JSON of one request. Raises MetricRefusedError."""
        # As it was sent: in the decoded path a name with a slash would be two parts.
        path = request.rel_url.raw_path
        if path.rstrip("/") in ("", ROOT):
            found = {name: _all(one) for name, one in self._decisions.items()}
            return {"deployments": found, "notes": list(self._notes())}
        asked = asked_pool(path)
        if asked is None:
            raise MetricRefusedError(404, "NotFound", f"{path} is not served: ask {ROOT}/NAME/pools/POOL")
        name, pool = asked
        decision = served(self._decisions, name)
        one = decision.count(pool)
        about = _about(decision.decided())
        return {"deployment": one.deployment, "pool": one.pool, "replicas": one.replicas, **about}


def _all(decision: NewestDecision) -> Mapping[str, Any]:
    try:
        return {"pools": {one.pool: one.replicas for one in decision.counts()}, **_about(decision.decided())}
    except MetricRefusedError as refused:
        return {"error": str(refused)}


def _about(message: ScalingDecision) -> Mapping[str, Any]:
    return {"decision_id": message.decision_id, "incarnation": message.incarnation, "time": message.time.isoformat()}
