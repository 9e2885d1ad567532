"""The name under which a Dynamo graph serves its model, read from its workers' command lines. Pure, but for ``detect``.

A DynamoGraphDeployment has ``spec.services`` (v1alpha1: a map; arguments in ``extraPodSpec.mainContainer``) or
``spec.components`` (v1beta1: a list; arguments in ``podTemplate.spec.containers``). What workers call a model is what
``model`` labels of their metrics say: ``--served-model-name`` before ``--model-name`` (the mocker's), ``--model`` and
``--model-path``, as Dynamo's planner 0.9.1 looks for it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMES = ("--served-model-name", "--model-name", "--model", "--model-path")
"""The options that name a model, strongest first."""
WORKERS = frozenset({"worker", "prefill", "decode"})
"""Types of components that serve a model."""
NOT_WORKERS = re.compile("frontend|planner|epp|router", re.IGNORECASE)
"""In names of components without a type that is a worker's."""
VERSIONS = ("v1beta1", "v1alpha1")
_VARIABLE = re.compile(r"\$\((\w+)\)|\$\{(\w+)\}|\$(\w+)")

Read = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""The object at a path of the Kubernetes API; None where there is none."""


@dataclass(frozen=True, slots=True)
class GraphModel:
    """``name`` is empty where none was found; ``why`` says why, and is empty where one was."""

    name: str = ""
    why: str = ""


async def detect(deployment: str, namespace: str, read: Read, graph: str = "") -> GraphModel:
    """The model of the graph whose Dynamo namespace is ``deployment``, ``{kubernetes namespace}-{graph}``.

    ``namespace``: the planner's own, tried first; ``graph``: the graph there, where it is known by another way than the
    deployment's name. Raises what ``read`` raises.
    """
    places = [*([(namespace, graph)] if graph else []), *splits(deployment, namespace)]
    for where, name in places:
        for version in VERSIONS:
            found = await read(f"/apis/nvidia.com/{version}/namespaces/{where}/dynamographdeployments/{name}")
            if found is not None:
                return model_of(found)
    return GraphModel(why=f"no DynamoGraphDeployment has the Dynamo namespace {deployment}")


def splits(deployment: str, namespace: str) -> list[tuple[str, str]]:
    """(Kubernetes namespace, graph) that may stand behind a Dynamo namespace: both may have dashes."""
    parts = deployment.split("-")
    pairs = [("-".join(parts[:at]), "-".join(parts[at:])) for at in range(1, len(parts))]
    return sorted((pair for pair in pairs if all(pair)), key=lambda pair: pair[0] != namespace)


def model_of(graph: Mapping[str, Any]) -> GraphModel:
    """The one model that the graph's workers serve. Different names are none: there is no telling which is meant."""
    found: dict[str, list[str]] = {}
    for component, body in _workers(graph):
        for container in _containers(body):
            if name := served_name(container):
                found.setdefault(name, []).append(component)
    if len(found) == 1:
        return GraphModel(next(iter(found)))
    if not found:
        return GraphModel(why=f"no worker of the graph names a model by {', '.join(NAMES)}")
    shown = "; ".join(f"{name} ({', '.join(where)})" for name, where in found.items())
    return GraphModel(why=f"the graph's workers serve different models: {shown}")


def served_name(container: Mapping[str, Any]) -> str:
    """The model that a container's command line names; empty where it names none, or one that is not known here."""
    words = list(_words([*_list(container.get("command")), *_list(container.get("args"))]))
    known = {str(each.get("name")): str(each["value"]) for each in _maps(container.get("env")) if "value" in each}
    for option in NAMES:
        for at, word in enumerate(words):
            name, equals, value = word.partition("=")
            if name == option:
                value = value if equals else (words[at + 1] if at + 1 < len(words) else "")
                return _filled_in(value, known)
    return ""


def _filled_in(value: str, known: Mapping[str, str]) -> str:
    """A value with the container's own variables; empty where one comes from elsewhere (a Secret, the node)."""
    names = [next(filter(None, found)) for found in _VARIABLE.findall(value)]
    if any(name not in known for name in names) or value.startswith("-"):
        return ""
    return _VARIABLE.sub(lambda found: known[next(filter(None, found.groups()))], value)


def _words(arguments: Sequence[Any]) -> Iterator[str]:
    """The words of a command line; an argument may hold a whole one, for a shell."""
    for argument in arguments:
        try:
            yield from shlex.split(str(argument))
        except ValueError:
            yield from str(argument).split()


def _workers(graph: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, body) of the components that serve a model; without any type, those whose names do not say otherwise."""
    spec = _map(graph.get("spec"))
    components = [(str(name), _map(body)) for name, body in _map(spec.get("services")).items()]
    components += [(str(body.get("name", "")), body) for body in _maps(spec.get("components"))]
    typed = [(name, body) for name, body in components if WORKERS & _types(body)]
    yield from typed or [(n, body) for n, body in components if not NOT_WORKERS.search(f"{n} {' '.join(_types(body))}")]


def _types(body: Mapping[str, Any]) -> set[str]:
    return {str(body.get(key, "")).lower() for key in ("type", "componentType", "subComponentType")}


def _containers(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    main = _map(_map(body.get("extraPodSpec")).get("mainContainer"))
    # The component's own variables stand beside the pod's.
    yield {**main, "env": [*_maps(body.get("envs")), *_maps(main.get("env"))]}
    yield from _maps(_map(_map(body.get("podTemplate")).get("spec")).get("containers"))


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else []


def _maps(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in _list(value) if isinstance(each, Mapping)]
