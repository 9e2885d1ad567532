"""The DynamoGraphDeployment of a request: v1alpha1 for v1alpha1 requests, v1beta1 for all others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.profiler.requests.generated.deployment_sizing import DeploymentSizing, SizingError
from planner.profiler.requests.generated.graph_components import GraphComponent, components
from planner.profiler.requests.power_request import PowerRequest, RequestForm

TOKEN_SECRET = "hf-token-secret"  # noqa: S105 - the name of a secret
GPU_RESOURCE = "nvidia.com/gpu"


def graph_deployment(request: PowerRequest, sizing: DeploymentSizing) -> dict[str, Any]:
    """The object. Raises SizingError for overrides that name a component which is not there."""
    parts = components(request, sizing)
    metadata = {
        "name": request.deployment_name,
        "namespace": request.deployment_namespace,
        "labels": {**request.overrides.labels, **request.labels},
    }
    if request.overrides.annotations:
        metadata["annotations"] = dict(request.overrides.annotations)
    if request.form is RequestForm.V1ALPHA1:
        name = f"{request.deployment_namespace}-{request.deployment_name}"
        services = {part.name: _service(part, name) for part in parts}
        return _object(RequestForm.V1ALPHA1.value, metadata, {"services": services})
    spec: dict[str, Any] = {"components": [_component(part) for part in parts]}
    if not request.mocker:
        spec = {"backendFramework": request.engine, **spec}
    return _overridden(_object(RequestForm.V1BETA1.value, metadata, spec), request.overrides.graph)


def _object(version: str, metadata: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": "DynamoGraphDeployment", "metadata": metadata, "spec": spec}


def _container(part: GraphComponent) -> dict[str, Any]:
    found: dict[str, Any] = {"image": part.image}
    if part.command:
        found["command"] = list(part.command)
    if part.arguments:
        found["args"] = list(part.arguments)
    if part.environment:
        found["env"] = [{"name": name, "value": value} for name, value in part.environment.items()]
    if part.role in ("prefill", "decode"):
        found["envFrom"] = [{"secretRef": {"name": TOKEN_SECRET, "optional": True}}]
    if part.volumes:
        found["volumeMounts"] = [
            {"name": one.name, "mountPath": one.path, "readOnly": one.read_only} for one in part.volumes
        ]
    return found


def _service(part: GraphComponent, namespace: str) -> dict[str, Any]:
    """v1alpha1's form."""
    pod: dict[str, Any] = {"mainContainer": _container(part)}
    if part.volumes:
        pod["volumes"] = [{"name": one.name, **one.source} for one in part.volumes]
    found: dict[str, Any] = {"dynamoNamespace": namespace, "replicas": part.replicas}
    if part.role in ("prefill", "decode"):
        found |= {"componentType": "worker", "subComponentType": part.role}
    else:
        found["componentType"] = part.role
    if part.annotations:
        found["extraPodMetadata"] = {"annotations": dict(part.annotations)}
    if part.gpus:
        found["resources"] = {"limits": {"gpu": str(part.gpus)}}
    return {**found, "extraPodSpec": pod}


def _component(part: GraphComponent) -> dict[str, Any]:
    """v1beta1's form."""
    container = {"name": "main", **_container(part)}
    if part.gpus:
        container["resources"] = {"limits": {GPU_RESOURCE: str(part.gpus)}}
    spec: dict[str, Any] = {"containers": [container]}
    if part.volumes:
        spec["volumes"] = [{"name": one.name, **one.source} for one in part.volumes]
    template: dict[str, Any] = {"spec": spec}
    if part.annotations:
        template["metadata"] = {"annotations": dict(part.annotations)}
    found: dict[str, Any] = {"name": part.name, "type": part.role, "replicas": part.replicas, "podTemplate": template}
    if part.scaled:
        found["scalingAdapter"] = {}
    return found


def _overridden(made: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """With ``overrides.dgd`` merged in: labels and annotations, and the spec, whose lists merge by ``name``."""
    metadata = given.get("metadata", {})
    for key in ("labels", "annotations"):
        if metadata.get(key):
            # What finds the deployment again stays as it is.
            made["metadata"][key] = {**metadata[key], **made["metadata"].get(key, {})}
    known = {part["name"] for part in made["spec"]["components"]}
    for part in given.get("spec", {}).get("components", []):
        if not isinstance(part, dict) or part.get("name") not in known:
            raise SizingError(
                f"spec.overrides.dgd: there is no component {part.get('name') if isinstance(part, dict) else part!r}; "
                f"there are {', '.join(sorted(known))}"
            )
    made["spec"] = merged(made["spec"], given.get("spec", {}))
    return made


def merged(made: Any, given: Any) -> Any:
    """With ``given`` merged in: mappings by key, lists of named mappings by name; anything else is replaced."""
    if isinstance(made, dict) and isinstance(given, Mapping):
        return {**made, **{key: merged(made[key], value) if key in made else value for key, value in given.items()}}
    if isinstance(made, list) and isinstance(given, list) and _named(made) and _named(given):
        by_name = {each["name"]: each for each in made}
        return list({**by_name, **{one["name"]: merged(by_name.get(one["name"]), one) for one in given}}.values())
    return given


def _named(values: list[Any]) -> bool:
    return all(isinstance(each, dict) and "name" in each for each in values)
