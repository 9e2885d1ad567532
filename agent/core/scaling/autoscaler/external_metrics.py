"""The external metrics API for HPA: what is asked, and the JSON that answers it. Pure.

One metric for each pool; its value is the number of replicas that are wanted. HPA adds up all items of an answer, so an
answer has exactly one: two deployments that both have the pool are told apart by the label ``deployment``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

GROUP, VERSION = "external.metrics.k8s.io", "v1beta1"
ROOT = f"/apis/{GROUP}/{VERSION}"
_PREFIX = "wattscale-"
_NAMED_PARTS = 3


@dataclass(frozen=True, slots=True)
class WantedPool:
    """One pool's wanted replicas. ``confirmed``: when the bus last had no newer decision, RFC 3339."""

    deployment: str
    namespace: str
    pool: str
    replicas: int
    confirmed: str

    @property
    def metric(self) -> str:
        """The metric's name."""
        return metric_of(self.pool)

    @property
    def labels(self) -> dict[str, str]:
        """What a label selector can ask for."""
        return {"deployment": self.deployment, "pool": self.pool}


class MetricRefusedError(Exception):
    """Why a request gets no value, with the status of the answer."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


def metric_of(pool: str) -> str:
    """The name of a pool's metric."""
    return f"{_PREFIX}{pool}"


def asked_metric(path: str) -> tuple[str, str] | None:
    """Namespace and metric of a request's decoded path; None for the discovery.

    Raises MetricRefusedError for another path.
    """
    if path.rstrip("/") == ROOT:
        return None
    parts = path.removeprefix(f"{ROOT}/").split("/")
    if path.startswith(f"{ROOT}/") and len(parts) == _NAMED_PARTS and parts[0] == "namespaces" and all(parts):
        return parts[1], parts[2]
    raise MetricRefusedError(404, "NotFound", f"{path} is not served: only {ROOT} is")


def discovery(pools: Iterable[str]) -> dict[str, Any]:
    """The list of metrics, as the API server and clients ask for it."""
    resources = [
        {"name": name, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList", "verbs": ["get"]}
        for name in sorted({metric_of(pool) for pool in pools})
    ]
    group_version = f"{GROUP}/{VERSION}"
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def selected(text: str) -> dict[str, str]:
    """The labels that a selector of equalities asks for. Raises MetricRefusedError for any other selector."""
    wanted: dict[str, str] = {}
    for term in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = term.partition("=")
        name, value = name.strip(), value.removeprefix("=").strip()
        if not sign or not name or any(mark in name for mark in "!() ") or wanted.get(name, value) != value:
            raise MetricRefusedError(400, "BadRequest", f"labelSelector {text!r}: only name=value, with commas between")
        wanted[name] = value
    return wanted


def may_select(selector: str, deployment: str) -> bool:
    """Whether a selector can ask for a pool of ``deployment``. Raises MetricRefusedError as `selected` does."""
    return selected(selector).get("deployment", deployment) == deployment


def metric_values(wanted: Iterable[WantedPool], namespace: str, metric: str, selector: str) -> dict[str, Any]:
    """The answer to HPA. Raises MetricRefusedError where it is not exactly one pool's value."""
    labels = selected(selector)
    found = [
        one
        for one in wanted
        if one.namespace == namespace and one.metric == metric and labels.items() <= one.labels.items()
    ]
    if not found:
        asked = f"metric {metric} in namespace {namespace}" + (f" with {selector}" if selector else "")
        raise MetricRefusedError(404, "NotFound", f"no decision names a pool for {asked}")
    if len(found) > 1:
        names = " and ".join(sorted(one.deployment for one in found))
        message = f"{metric} is wanted by {names}: HPA would add them up; select one by the label deployment"
        raise MetricRefusedError(400, "BadRequest", message)
    (one,) = found
    item = {
        "metricName": metric,
        "metricLabels": one.labels,
        "timestamp": one.confirmed,
        "value": str(one.replicas),
    }
    return {
        "kind": "ExternalMetricValueList",
        "apiVersion": f"{GROUP}/{VERSION}",
        "metadata": {},
        "items": [item],
    }


def status_of(refused: MetricRefusedError) -> Mapping[str, Any]:
    """A refusal as Kubernetes words it."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": str(refused),
        "reason": refused.reason,
        "code": refused.status,
    }
