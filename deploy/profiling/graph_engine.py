"""The engine of a DynamoGraphDeployment: model, backend, TP sizes and arguments of its two kinds of worker. Pure.

A profile is measured on engines that do both phases, so that what makes a worker a half of two is left out, and what
concerns the cluster is passed over. Every other argument must be known to mean the same to an engine that is started
alone; unknown keys are refused by their path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from deploy.profiling.graph_options import GraphError, WorkerArguments, command_words, engine_options

Worker = Literal["prefill", "decode"]
MODULES = {"dynamo.vllm": "vllm", "dynamo.sglang": "sglang", "dynamo.trtllm": "trtllm"}
KIND = "DynamoGraphDeployment"
ALPHA, BETA = "nvidia.com/v1alpha1", "nvidia.com/v1beta1"
ROOT = frozenset({"apiVersion", "kind", "metadata", "spec", "status"})
SPEC = frozenset(
    {
        *("backendFramework", "services", "components", "envs", "env", "pvcs", "annotations", "labels", "restart"),
        *("topologyConstraint", "priorityClassName"),
    }
)
SERVICE = frozenset(
    {
        *("annotations", "labels", "serviceName", "componentType", "subComponentType", "dynamoNamespace", "resources"),
        *("globalDynamoNamespace", "autoscaling", "envs", "envFromSecret", "volumeMounts", "ingress", "modelRef"),
        *("sharedMemory", "extraPodMetadata", "extraPodSpec", "livenessProbe", "readinessProbe", "replicas"),
        *("multinode", "scalingAdapter", "eppConfig", "topologyConstraint", "workerGroupName", "minAvailable"),
    }
)
COMPONENT = frozenset(
    {
        *("name", "type", "replicas", "podTemplate", "scalingAdapter", "multinode", "modelRef", "sharedMemorySize"),
        *("compilationCache", "eppConfig", "topologyConstraint", "experimental", "globalDynamoNamespace"),
        *("runtimeVersionOverride", "minAvailable"),
    }
)
CONTAINER = frozenset(
    {
        *("name", "image", "imagePullPolicy", "command", "args", "env", "envFrom", "workingDir", "resources", "ports"),
        *("volumeMounts", "volumeDevices", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "stdin"),
        *("securityContext", "terminationMessagePath", "terminationMessagePolicy", "tty", "restartPolicy"),
    }
)


@dataclass(frozen=True, slots=True)
class GraphEngine:
    """What a profile is measured on. ``tps``: TP sizes of prefill and decode, ascending.

    ``notes``: what of the graph is not as a reader of it may think.
    """

    model: str
    backend: str
    tps: tuple[int, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Container:
    """A worker's main container. ``where``: its path; ``gpus``: of its limits, None where they say nothing.

    ``outside``: secrets and ConfigMaps of the cluster that its environment is taken from.
    """

    where: str
    phase: Worker
    content: Mapping[str, Any]
    environment: Mapping[str, str]
    gpus: int | None
    outside: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """One worker as it is written. ``where``: its path."""

    where: str
    phase: Worker
    model: str
    backend: str
    tp: int
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    outside: tuple[str, ...]
    note: str


def is_graph(content: Any) -> bool:
    """Whether a file holds a graph."""
    return isinstance(content, dict) and content.get("kind") == KIND


def graph_engine(content: Mapping[str, Any], worker: Worker | None) -> GraphEngine:
    """The engine. ``worker``: whose arguments are taken where the two differ. Raises GraphError."""
    _known(content, ROOT, "")
    version = content.get("apiVersion")
    if version not in (ALPHA, BETA):
        raise GraphError(f"apiVersion: {version!r} of {KIND} is not known; known: {ALPHA}, {BETA}")
    spec = _mapping(content.get("spec"), "spec")
    _known(spec, SPEC, "spec.")
    shared = _environment(
        spec.get("envs" if version == ALPHA else "env"), "spec.envs" if version == ALPHA else "spec.env"
    )
    parts: dict[Worker, _Part] = {}
    for each in _services(spec, shared) if version == ALPHA else _components(spec, shared):
        if each.phase in parts:
            raise GraphError(f"{each.where}: a second {each.phase} worker; {parts[each.phase].where} is one already")
        parts[each.phase] = _part(each, spec.get("backendFramework"))
    missing = [phase for phase in ("prefill", "decode") if phase not in parts]
    if missing:
        raise GraphError(f"spec: it has no {missing[0]} worker")
    return _joined(parts["prefill"], parts["decode"], worker)


def _joined(prefill: _Part, decode: _Part, worker: Worker | None) -> GraphEngine:
    for name in ("model", "backend"):
        one, other = getattr(prefill, name), getattr(decode, name)
        if one != other:
            raise GraphError(f"{decode.where}: its {name} is {other}, and that of {prefill.where} is {one}")
    chosen = prefill if worker == "prefill" else decode
    if worker is None:
        if prefill.arguments != decode.arguments:
            raise GraphError(
                f"{decode.where}: its engine's arguments are {_shown(decode.arguments)}, those of {prefill.where} "
                f"{_shown(prefill.arguments)}: one engine is profiled for both; choose with --worker prefill or decode"
            )
        if prefill.environment != decode.environment:
            raise GraphError(f"{decode.where}: its env differs from that of {prefill.where}; choose with --worker")
    tps = tuple(sorted({prefill.tp, decode.tp}))
    notes = [part.note for part in (prefill, decode) if part.note]
    if outside := sorted({*prefill.outside, *decode.outside}):
        notes.append(
            f"the variables of {', '.join(outside)} are the cluster's and not known here: export those that the engine "
            "needs before this command, for it gets this shell's environment"
        )
    return GraphEngine(chosen.model, chosen.backend, tps, chosen.arguments, chosen.environment, tuple(notes))


def _shown(words: Sequence[str]) -> str:
    return repr(" ".join(words)) if words else "none"


def _services(spec: Mapping[str, Any], shared: Mapping[str, str]) -> Iterable[_Container]:
    """Workers of v1alpha1."""
    for name, value in _mapping(spec.get("services"), "spec.services").items():
        where = f"spec.services.{name}"
        service = _mapping(value, where)
        phase = _worker(service, SERVICE, where, "subComponentType", "componentType")
        if phase is None:
            continue
        pod = _mapping(service.get("extraPodSpec"), f"{where}.extraPodSpec")
        container = _mapping(pod.get("mainContainer"), f"{where}.extraPodSpec.mainContainer")
        inside = f"{where}.extraPodSpec.mainContainer"
        _known(container, CONTAINER, f"{inside}.")
        environment = {
            **shared,
            **_environment(service.get("envs"), f"{where}.envs"),
            **_environment(container.get("env"), f"{inside}.env"),
        }
        gpus = _gpus(service.get("resources"), "gpu", where)
        if gpus is None:
            gpus = _gpus(container.get("resources"), "nvidia.com/gpu", inside)
        secret = service.get("envFromSecret")
        outside = (*((str(secret),) if secret else ()), *_outside(container, inside))
        yield _Container(inside, phase, container, environment, gpus, outside)


def _components(spec: Mapping[str, Any], shared: Mapping[str, str]) -> Iterable[_Container]:
    """Workers of v1beta1."""
    components = spec.get("components")
    if not isinstance(components, list):
        raise GraphError("spec.components: missing, or not a list")
    for number, value in enumerate(components):
        where = f"spec.components.{number}"
        component = _mapping(value, where)
        phase = _worker(component, COMPONENT, where, "type", "type")
        if phase is None:
            continue
        template = _mapping(component.get("podTemplate"), f"{where}.podTemplate")
        pod = _mapping(template.get("spec"), f"{where}.podTemplate.spec")
        containers = pod.get("containers")
        found = [one for one in containers if isinstance(one, dict)] if isinstance(containers, list) else []
        main = next((one for one in found if one.get("name") == "main"), None)
        inside = f"{where}.podTemplate.spec.containers.main"
        if main is None:
            raise GraphError(f"{inside}: missing")
        _known(main, CONTAINER, f"{inside}.")
        environment = {**shared, **_environment(main.get("env"), f"{inside}.env")}
        gpus = _gpus(main.get("resources"), "nvidia.com/gpu", inside)
        yield _Container(inside, phase, main, environment, gpus, _outside(main, inside))


def _worker(part: Mapping[str, Any], known: frozenset[str], where: str, kind: str, type_: str) -> Worker | None:
    """The phase of a part that is a worker; None of any other part. ``kind`` and ``type_``: the keys that say so.

    A ``worker`` that is not said to be for prefill decodes, as for Dynamo's planner.
    """
    _known(part, known, f"{where}.")
    phase: Worker | None = None
    if part.get(kind) == "prefill":
        phase = "prefill"
    elif part.get(kind) == "decode" or part.get(type_) == "worker":
        phase = "decode"
    if phase is not None and part.get("multinode"):
        raise GraphError(
            f"{where}.multinode: an engine over several nodes is not profiled; give --endpoint of one that runs"
        )
    return phase


def _part(found: _Container, framework: Any) -> _Part:
    where = found.where
    words = command_words(found.content, found.environment, where)
    modules = [each for each in words if each.startswith("dynamo.")]
    backend = MODULES.get(modules[0]) if modules else framework
    if not isinstance(backend, str) or backend not in MODULES.values():
        raise GraphError(
            f"{where}: no backend: its command runs none of {', '.join(MODULES)}, and spec.backendFramework names none"
        )
    if framework is not None and framework != backend:
        raise GraphError(f"{where}: its command runs {backend}, and spec.backendFramework is {framework}")
    options = engine_options(words[words.index(modules[0]) + 1 :] if modules else words, backend, where)
    if options.model is None:
        raise GraphError(f"{where}.args: no --model or --model-path")
    tp, note = _tp(found, options)
    return _Part(where, found.phase, options.model, backend, tp, options.kept, found.environment, found.outside, note)


def _tp(found: _Container, options: WorkerArguments) -> tuple[int, str]:
    """The TP size, and a note where GPUs of the limits are left over.

    Engines take 1 where no option names it; of trtllm a file may, and then the GPUs are the only hint.
    """
    tp, gpus = options.tp, found.gpus
    if tp is None and options.has_file and gpus is not None:
        return gpus, ""
    said = "its arguments name no TP size, which is TP 1" if tp is None else f"its arguments say TP {tp}"
    tp = tp or 1
    if gpus is None or gpus == tp:
        return tp, ""
    count = f"{gpus} GPU" if gpus == 1 else f"{gpus} GPUs"
    if gpus < tp:
        raise GraphError(f"{found.where}.args: TP {tp}, and its limits give it {count}; give it as many as its TP size")
    return tp, f"{found.where}: {said}, and its limits {count}: TP {tp} is profiled, unless --tp names another"


def _outside(container: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Names of the secrets and ConfigMaps in ``envFrom``."""
    given = container.get("envFrom") or []
    if not isinstance(given, list):
        raise GraphError(f"{where}.envFrom: not a list")
    names = []
    for number, one in enumerate(given):
        found = _mapping(one, f"{where}.envFrom.{number}")
        names += [str(ref["name"]) for ref in found.values() if isinstance(ref, dict) and "name" in ref]
    return tuple(names)


def _environment(given: Any, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    if not isinstance(given or [], list):
        raise GraphError(f"{where}: not a list of names and values")
    for number, one in enumerate(given or ()):
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str):
            raise GraphError(f"{where}.{number}: not a name and a value")
        if set(one) != {"name", "value"}:
            raise GraphError(
                f"{where}.{number}: {name} has no plain value; set it where you profile, and leave it out here"
            )
        found[name] = str(one["value"])
    return found


def _gpus(resources: Any, key: str, where: str) -> int | None:
    """What a worker's limits say; None where they say nothing."""
    found = _mapping(resources or {}, f"{where}.resources")
    for section in ("limits", "requests"):
        value = _mapping(found.get(section) or {}, f"{where}.resources.{section}").get(key)
        if value is not None:
            if not re.fullmatch(r"[1-9]\d{0,3}", str(value)):
                raise GraphError(f"{where}.resources.{section}.{key}: {value!r} is no number of GPUs")
            return int(value)
    return None


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise GraphError(f"{where}: missing, or not a mapping")
    return value


def _known(found: Mapping[str, Any], known: frozenset[str], above: str) -> None:
    for key in found:
        if key not in known:
            raise GraphError(f"{above}{key}: unknown key; known: {', '.join(sorted(known))}")
