"""The engine of a DynamoGraphDeployment: model, backend, TP sizes and arguments of its two kinds of worker. Pure.

A profile is measured on engines that do both phases, so that what makes a worker a half of two is left out, and what
concerns the cluster is passed over. Every other argument must be known to mean the same to an engine that is started
alone; unknown keys are refused by their path.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Worker = Literal["prefill", "decode"]
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
MODEL_FLAGS = frozenset({"--model", "--model-path"})
TP_FLAGS = frozenset({"--tensor-parallel-size", "-tp", "--tp", "--tp-size"})
MODULES = {"dynamo.vllm": "vllm", "dynamo.sglang": "sglang", "dynamo.trtllm": "trtllm"}
HALF = {
    "--disaggregation-mode": 1,
    "--disaggregation-transfer-backend": 1,
    "--disaggregation-bootstrap-port": 1,
    "--disaggregation-strategy": 1,
    "--kv-transfer-config": 1,
    "--kv-events-config": 1,
    "--connector": 1,
    "--is-prefill-worker": 0,
    "--is-decode-worker": 0,
    "--publish-events-and-metrics": 0,
    "--skip-tokenizer-init": 0,
    "--enable-metrics": 0,
    "--host": 1,
    "--port": 1,
    "--endpoint": 1,
    "--store-kv": 1,
    "--request-plane": 1,
    "--event-plane": 1,
}
"""What ties a worker to its other half or to Dynamo, or is this profiler's own, and how many values follow."""
TRTLLM = {
    "--extra-engine-args": "--extra_llm_api_options",
    "--max-num-tokens": "--max_num_tokens",
    "--max-batch-size": "--max_batch_size",
    "--max-seq-len": "--max_seq_len",
    "--max-beam-width": "--max_beam_width",
    "--pipeline-parallel-size": "--pp_size",
    "--expert-parallel-size": "--ep_size",
    "--free-gpu-memory-fraction": "--kv_cache_free_gpu_memory_fraction",
}
"""Dynamo's names of options with one value, and those of ``trtllm-serve``."""
TRTLLM_LEFT_OUT = frozenset({"--served-model-name"})
"""``trtllm-serve`` serves a model under its own name only."""
SHELLS = ("sh", "bash")
SHELL_WORDS = re.compile(r"[;&|<>`$()]|\n")


class GraphError(ValueError):
    """A graph that no engine can be started from. The message is one line, which begins with a path."""


@dataclass(frozen=True, slots=True)
class GraphEngine:
    """What a profile is measured on. ``tps``: TP sizes of prefill and decode, ascending."""

    model: str
    backend: str
    tps: tuple[int, ...]
    arguments: tuple[str, ...]
    environment: Mapping[str, str]


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
    services = _services(spec) if version == ALPHA else _components(spec)
    parts: dict[Worker, _Part] = {}
    for where, phase, container, environment, gpus in services:
        if phase in parts:
            raise GraphError(f"{where}: a second {phase} worker; {parts[phase].where} is one already")
        parts[phase] = _part(where, phase, container, {**shared, **environment}, gpus, spec.get("backendFramework"))
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
    return GraphEngine(chosen.model, chosen.backend, tps, chosen.arguments, chosen.environment)


def _shown(words: Sequence[str]) -> str:
    return repr(" ".join(words)) if words else "none"


_Found = tuple[str, Worker, Mapping[str, Any], Mapping[str, str], int | None]


def _services(spec: Mapping[str, Any]) -> Iterable[_Found]:
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
            **_environment(service.get("envs"), f"{where}.envs"),
            **_environment(container.get("env"), f"{inside}.env"),
        }
        yield inside, phase, container, environment, _gpus(service.get("resources"), "gpu", where)


def _components(spec: Mapping[str, Any]) -> Iterable[_Found]:
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
        yield (
            inside,
            phase,
            main,
            _environment(main.get("env"), f"{inside}.env"),
            _gpus(main.get("resources"), "nvidia.com/gpu", inside),
        )


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


def _part(
    where: str,
    phase: Worker,
    container: Mapping[str, Any],
    environment: Mapping[str, str],
    gpus: int | None,
    framework: Any,
) -> _Part:
    words = _words(container, where)
    modules = [each for each in words if each.startswith("dynamo.")]
    backend = MODULES.get(modules[0]) if modules else framework
    if not isinstance(backend, str) or backend not in MODULES.values():
        raise GraphError(
            f"{where}: no backend: its command runs none of {', '.join(MODULES)}, and spec.backendFramework names none"
        )
    if framework is not None and framework != backend:
        raise GraphError(f"{where}: its command runs {backend}, and spec.backendFramework is {framework}")
    options = words[words.index(modules[0]) + 1 :] if modules else words
    model, tp, kept = _options(options, backend, where)
    if model is None:
        raise GraphError(f"{where}.args: no --model or --model-path")
    return _Part(where, phase, model, backend, tp or gpus or 1, kept, environment)


def _words(container: Mapping[str, Any], where: str) -> list[str]:
    """Command and arguments as one list; those of ``sh -c`` are taken apart where it is one plain command."""
    words: list[str] = []
    for name in ("command", "args"):
        given = container.get(name, [])
        if not isinstance(given, list) or not all(isinstance(one, (str, int, float)) for one in given):
            raise GraphError(f"{where}.{name}: not a list of words")
        words += map(str, given)
    if len(words) >= 3 and words[0].rsplit("/", 1)[-1] in SHELLS and words[1] == "-c":
        text = words[2].strip().replace("\\\n", " ")
        if len(words) > 3 or SHELL_WORDS.search(text):
            raise GraphError(f"{where}.args: a shell's script cannot be read; write the command as a list of words")
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise GraphError(f"{where}.args: {error}") from None
        return words[1:] if words[:1] == ["exec"] else words
    return words


def _options(words: Sequence[str], backend: str, where: str) -> tuple[str | None, int | None, tuple[str, ...]]:
    """The model, the TP size, and what else an engine that is started alone takes."""
    model: str | None = None
    tp: int | None = None
    kept: list[str] = []
    for name, values in _grouped(words, where):
        if name in MODEL_FLAGS:
            model = _one(name, values, where)
        elif name in TP_FLAGS:
            text = _one(name, values, where)
            if not re.fullmatch(r"[1-9]\d{0,3}", text):
                raise GraphError(f"{where}.args: {name} {text}: not a number of GPUs")
            tp = int(text)
        elif name in HALF:
            if len(values) != HALF[name]:
                raise GraphError(f"{where}.args: {name} takes {HALF[name]} values, and has {len(values)}")
        elif name.startswith("--dyn-"):
            continue
        elif backend != "trtllm":
            kept += [name, *values]
        elif name in TRTLLM:
            kept += [TRTLLM[name], _one(name, values, where)]
        elif name == "--trust-remote-code":
            kept.append("--trust_remote_code")
        elif name not in TRTLLM_LEFT_OUT:
            raise GraphError(f"{where}.args: {name} has no equal in trtllm-serve; known: {', '.join(TRTLLM)}")
    return model, tp, tuple(kept)


def _grouped(words: Sequence[str], where: str) -> Iterable[tuple[str, list[str]]]:
    """Options with the values that follow; ``--name=value`` is two words."""
    current: tuple[str, list[str]] | None = None
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            if current is not None:
                yield current
            name, equals, value = word.partition("=")
            current = (name, [value] if equals else [])
        elif current is None:
            raise GraphError(f"{where}.args: {word!r} belongs to no option")
        else:
            current[1].append(word)
    if current is not None:
        yield current


def _one(name: str, values: Sequence[str], where: str) -> str:
    if len(values) != 1:
        raise GraphError(f"{where}.args: {name} takes one value, and has {len(values)}")
    return values[0]


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
