"""The HorizontalPodAutoscalers that take their counts from here, and the single steps that each of them loses. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from agent.core.scaling.autoscaler.external_metrics import metric_of
from agent.core.scaling.autoscaler.hpa_formula import DEFAULT_TOLERANCE, Tolerance, lost_from, quantity
from agent.core.scaling.autoscaler.pool_address import asked_pool, named_pool

_EXTERNAL = ("external", "external-push")


@dataclass(frozen=True, slots=True)
class LostSteps:
    """An HPA of a pool and the count from which it ignores single steps; ``from_replicas`` None: from none.

    ``unset``: the fields that the server's copy of the HPA lacks.
    """

    namespace: str
    autoscaler: str
    deployment: str
    pool: str
    from_replicas: int | None
    unset: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What people read; empty where no step is lost."""
        if self.from_replicas is None:
            return ""
        why = f"{' and '.join(self.unset)} is not set in the server's copy" if self.unset else "its tolerance is not 0"
        return (
            f"HorizontalPodAutoscaler {self.namespace}/{self.autoscaler} ignores single steps of pool {self.pool} of "
            f"{self.deployment} from {self.from_replicas} replicas on: {why}; set tolerance: '0' under scaleUp and "
            "scaleDown (kept from Kubernetes 1.35 on; with an older one lower the controller manager's "
            "--horizontal-pod-autoscaler-tolerance, or scale with `wattscale connector kubernetes`)"
        )


def lost_steps(
    pools: Iterable[tuple[str, str, str]],
    autoscalers: Iterable[Mapping[str, Any]],
    scaled_objects: Iterable[Mapping[str, Any]],
) -> tuple[LostSteps, ...]:
    """One for each HPA that asks for one of our pools, directly or through KEDA.

    ``pools``: (namespace, deployment, pool); ``autoscalers``: HorizontalPodAutoscalers of autoscaling/v2;
    ``scaled_objects``: KEDA's, with triggers that name a pool: of type ``metrics-api`` in their address, of type
    ``external`` or ``external-push`` in their metadata.
    """
    ours = tuple(pools)
    by_keda = {
        (_namespace(item), name): asked for item in scaled_objects for name, asked in (_through_keda(item),) if asked
    }
    found = []
    for item in autoscalers:
        namespace, name = _namespace(item), str(item["metadata"]["name"])
        asked = {*by_keda.get((namespace, name), ()), *_directly(item, ours)}
        tolerance, unset = tolerance_of(item)
        for home, deployment, pool in ours:
            if home == namespace and (deployment, pool) in asked:
                found.append(LostSteps(namespace, name, deployment, pool, lost_from(tolerance), unset))
    return tuple(found)


def tolerance_of(autoscaler: Mapping[str, Any]) -> tuple[Tolerance, tuple[str, ...]]:
    """The tolerance in force, as far as the HPA shows it, and the fields that it lacks: the default acts for these."""
    behavior = (autoscaler.get("spec") or {}).get("behavior") or {}
    values = {way: quantity((behavior.get(way) or {}).get("tolerance")) for way in ("scaleUp", "scaleDown")}
    up, down = (DEFAULT_TOLERANCE if one is None else one for one in values.values())
    return Tolerance(up, down), tuple(f"{way}.tolerance" for way, one in values.items() if one is None)


def _namespace(item: Mapping[str, Any]) -> str:
    return str(item["metadata"].get("namespace", ""))


def _directly(item: Mapping[str, Any], pools: Iterable[tuple[str, str, str]]) -> set[tuple[str, str]]:
    """(deployment, pool) of the external metrics of an HPA that are ours."""
    found: set[tuple[str, str]] = set()
    for one in (item.get("spec") or {}).get("metrics") or ():
        metric = (one.get("external") or {}).get("metric") or {}
        labels = (metric.get("selector") or {}).get("matchLabels") or {}
        for home, deployment, pool in pools:
            if (
                home == _namespace(item)
                and metric.get("name") == metric_of(pool)
                and labels.items() <= {"deployment": deployment, "pool": pool}.items()
            ):
                found.add((deployment, pool))
    return found


def _through_keda(item: Mapping[str, Any]) -> tuple[str, frozenset[tuple[str, str]]]:
    """The name of the HPA that KEDA makes for a ScaledObject, and the (deployment, pool) of its triggers."""
    spec = item.get("spec") or {}
    settings = (spec.get("advanced") or {}).get("horizontalPodAutoscalerConfig") or {}
    stated = (item.get("status") or {}).get("hpaName") or settings.get("name")
    asked = set()
    for trigger in spec.get("triggers") or ():
        metadata = trigger.get("metadata") or {}
        found = None
        if trigger.get("type") == "metrics-api":
            found = asked_pool(_path(str(metadata.get("url", ""))))
        elif trigger.get("type") in _EXTERNAL:
            found = named_pool(metadata)
        if found is not None:
            asked.add(found)
    return str(stated or f"keda-hpa-{item['metadata']['name']}"), frozenset(asked)


def _path(url: str) -> str:
    """The path of an address; empty where that is none, for whoever may write a ScaledObject can put anything there."""
    try:
        return urlsplit(url).path
    except ValueError:
        return ""
