"""The model's name from a graph's workers, in both versions of the resource and every form of command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from planner.adapters.graph_model import GraphModel, detect, model_of, served_name, splits

QWEN = "Qwen/Qwen3-0.6B"


def service(*args: str, kind: str = "worker", sub: str = "") -> dict[str, Any]:
    return {
        "componentType": kind,
        "subComponentType": sub,
        "extraPodSpec": {"mainContainer": {"command": ["python3", "-m", "dynamo.vllm"], "args": list(args)}},
    }


def v1alpha1(**services: Any) -> dict[str, Any]:
    return {"apiVersion": "nvidia.com/v1alpha1", "spec": {"services": services}}


def v1beta1(*components: tuple[str, str, list[str]]) -> dict[str, Any]:
    shown = [
        {"name": name, "type": kind, "podTemplate": {"spec": {"containers": [{"name": "main", "args": args}]}}}
        for name, kind, args in components
    ]
    return {"apiVersion": "nvidia.com/v1beta1", "spec": {"components": shown}}


GUIDES_GRAPH = v1alpha1(
    Frontend=service("--http-port", "8000", kind="frontend"),
    Planner=service("--model-name", "another/model", kind="planner"),
    VLLMPrefillWorker=service("--model", QWEN, "--is-prefill-worker", sub="prefill"),
    VLLMDecodeWorker=service("--model", QWEN, sub="decode"),
)
"""The power guide's graph."""


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["--model", QWEN], QWEN),
        ([f"--model={QWEN}"], QWEN),
        (["--model-path", QWEN], QWEN),
        (["--model", "/weights/x", "--served-model-name", QWEN], QWEN),
        (["--model-name", QWEN, "--model-path", "/weights/x"], QWEN),
        (["--served-model-name", QWEN, "second-name"], QWEN),
        ([f"python3 -m dynamo.vllm --model '{QWEN}' --tp 2 2>&1 | tee log"], QWEN),
        (["--model", "$(MODEL)"], QWEN),
        (["exec python3 -m dynamo.vllm --model ${MODEL}"], QWEN),
        (["--model", "$MODEL"], QWEN),
        (["--model", "$(SECRET)"], ""),
        (["--model", "--tp"], ""),
        (["--model"], ""),
        (["--tp", "2"], ""),
        (["an unbalanced ' quote", "--model", QWEN], QWEN),
        ([], ""),
    ],
)
def test_a_command_line_names_the_model_in_any_form(words: list[str], name: str) -> None:
    secret = {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
    container = {"env": [{"name": "MODEL", "value": QWEN}, secret]}
    assert served_name({**container, "args": words}) == name
    assert served_name({**container, "command": words}) == name


def test_the_guides_graph_serves_what_its_workers_name_and_not_what_its_planner_is_given() -> None:
    assert model_of(GUIDES_GRAPH) == GraphModel(QWEN)


def test_the_newer_resource_is_read_as_well() -> None:
    graph = v1beta1(("Frontend", "frontend", ["--model-name", "x"]), ("decode", "decode", ["--model", QWEN]))
    assert model_of(graph) == GraphModel(QWEN)


def test_a_graph_without_types_is_read_by_the_names_of_its_components() -> None:
    untyped = {name: service("--model", QWEN, kind="") for name in ("VllmDecodeWorker", "VllmPrefillWorker")}
    graph = v1alpha1(
        **untyped, Planner=service("--model-name", "x", kind=""), Frontend=service("--model", "y", kind="")
    )
    assert model_of(graph) == GraphModel(QWEN)


def test_workers_that_differ_serve_no_model_that_could_be_named() -> None:
    graph = v1beta1(("a", "prefill", ["--model", "x"]), ("b", "decode", ["--model", "y"]))
    assert model_of(graph) == GraphModel(why="the graph's workers serve different models: x (a); y (b)")


@pytest.mark.parametrize("graph", [{}, {"spec": None}, {"spec": {"services": []}}, {"spec": {"components": ["x", {}]}}])
def test_a_graph_of_another_shape_names_none(graph: Mapping[str, Any]) -> None:
    assert model_of(graph).name == ""
    assert model_of(graph).why.startswith("no worker of the graph names a model by --served-model-name")


def test_a_dynamo_namespace_is_split_at_every_dash_the_planners_own_namespace_first() -> None:
    assert splits("dynamo-system-vllm-disagg", "dynamo-system") == [
        ("dynamo-system", "vllm-disagg"),
        ("dynamo", "system-vllm-disagg"),
        ("dynamo-system-vllm", "disagg"),
    ]
    assert splits("dynamo", "default") == []


async def test_the_graph_is_asked_for_in_both_versions_and_by_the_operators_name() -> None:
    asked = []

    async def read(path: str) -> Mapping[str, Any] | None:
        asked.append(path)
        return GUIDES_GRAPH if path == "/apis/nvidia.com/v1alpha1/namespaces/ns/dynamographdeployments/g" else None

    assert await detect("ns-g", "default", read) == GraphModel(QWEN)
    assert len(asked) == 2
    assert await detect("dynamo", "ns", read, "g") == GraphModel(QWEN)
    assert await detect("dynamo", "ns", read) == GraphModel(
        why="no DynamoGraphDeployment has the Dynamo namespace dynamo"
    )
