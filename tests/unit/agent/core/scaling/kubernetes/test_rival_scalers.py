"""Autoscalers that aim at a target, and planners of a graph that act."""

from __future__ import annotations

from typing import Any

import pytest

from agent.core.scaling.kubernetes.rival_scalers import planner_in_the_way, rival
from agent.core.scaling.kubernetes.scale_targets import ScaleTarget

TARGET = ScaleTarget("apps", "v1", "deployments", "ns", "decode")


def aimed(name: str, reference: dict[str, str], **annotations: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "annotations": annotations}, "spec": {"scaleTargetRef": reference}}


AT_IT = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "decode"}


def test_an_autoscaler_that_aims_at_the_target_is_named() -> None:
    others = [aimed("other", {**AT_IT, "name": "x"}), aimed("kind", {**AT_IT, "kind": "StatefulSet"})]
    assert rival(TARGET, "Deployment", others, []) == ""
    assert rival(TARGET, "Deployment", [*others, aimed("h", AT_IT)], []) == "HorizontalPodAutoscaler h"
    older = aimed("h", {**AT_IT, "apiVersion": "apps/v1beta2"})
    assert rival(TARGET, "Deployment", [older], []) == "HorizontalPodAutoscaler h"


def test_a_scaled_object_is_named_before_the_autoscaler_that_it_made_and_not_while_paused() -> None:
    made = [aimed("keda-hpa-s", AT_IT)]
    assert rival(TARGET, "Deployment", made, [aimed("s", {"name": "decode"})]) == "ScaledObject s"
    paused = aimed("s", {"name": "decode"}, **{"autoscaling.keda.sh/paused": "true"})
    assert rival(TARGET, "Deployment", [], [paused]) == ""


def planner(**more: Any) -> dict[str, Any]:
    return {"name": "Planner", "type": "planner", **more}


def args(*words: str) -> dict[str, Any]:
    return {"podTemplate": {"spec": {"containers": [{"args": list(words)}]}}}


@pytest.mark.parametrize(
    ("component", "why"),
    [
        (planner(), "planner Planner scales it"),
        (planner(replicas=0), ""),
        (planner(**args("--config", '{"advisory": true}')), ""),
        (planner(**args('--config={"advisory": true}')), ""),
        (planner(**args("--config", '{"advisory": false}')), "planner Planner scales it"),
        (planner(**args("--config", "not json")), "planner Planner scales it"),
        (planner(**args("--config", "7")), "planner Planner scales it"),
        (planner(**args('{"advisory": true, "enable_power_awareness": true}')), "planner Planner sets power limits"),
        (planner(**args("/opt/wattscale/bin/wattscale", "planner", "run")), ""),
        (planner(**args("--config", "wattscale")), "planner Planner scales it"),
        ({"name": "Decode", "type": "decode"}, ""),
    ],
)
def test_a_planner_of_the_graph_is_in_the_way_unless_it_only_advises(component: dict[str, Any], why: str) -> None:
    found = planner_in_the_way({"spec": {"components": [component]}})
    assert why in found
    assert bool(why) == bool(found)


def test_the_older_version_of_a_graph_is_read_too() -> None:
    acts = {"Planner": {"componentType": "planner"}, "X": None}
    assert "planner Planner" in planner_in_the_way({"spec": {"services": acts}})
    advises = {"componentType": "planner", "extraPodSpec": {"mainContainer": {"args": ['{"advisory": true}']}}}
    assert planner_in_the_way({"spec": {"services": {"Planner": advises}}}) == ""
    assert planner_in_the_way({}) == ""
