"""Rights, and the line of the manifest for each that is missing."""

from __future__ import annotations

from agent.core.scaling.kubernetes.needed_rights import Right, manifest_lines, needed
from agent.core.scaling.kubernetes.scale_targets import target_of

DEPLOYMENT = target_of("deployments.v1.apps/decode", "ns")
ADAPTER = target_of("dynamographdeploymentscalingadapters.v1beta1.nvidia.com/chat-decode", "ns")


def test_a_deployment_needs_no_right_on_graphs_and_no_right_to_write_but_scale_and_events() -> None:
    rights = needed([DEPLOYMENT, target_of("deployments.v1.apps/prefill", "ns")])
    assert len(rights) == len(set(rights))
    assert {one.group for one in rights} == {"", "apps", "autoscaling"}
    writes = {(one.verb, one.path) for one in rights if one.verb not in ("get", "list", "watch")}
    assert writes == {("patch", "deployments/scale"), ("create", "events")}


def test_an_adapter_needs_its_graph() -> None:
    rights = needed([ADAPTER])
    assert Right("ns", "watch", "nvidia.com", "dynamographdeployments") in rights
    assert Right("ns", "patch", "nvidia.com", "dynamographdeploymentscalingadapters", "scale") in rights


def test_what_is_missing_is_named_with_the_rule_to_add() -> None:
    scale = [Right("ns", verb, "apps", "deployments", "scale") for verb in ("get", "patch")]
    lines = manifest_lines([*scale, Right("ns", "list", "", "pods")])
    rules = (
        '- {apiGroups: ["apps"], resources: ["deployments/scale"], verbs: [get, patch]}',
        '- {apiGroups: [""], resources: ["pods"], verbs: [list]}',
    )
    add = "in namespace ns is not allowed: add to the Role's rules"
    assert lines == (
        f"get and patch on deployments/scale {add}: {rules[0]}",
        f"list on pods {add}: {rules[1]}",
    )
    assert manifest_lines([]) == ()
