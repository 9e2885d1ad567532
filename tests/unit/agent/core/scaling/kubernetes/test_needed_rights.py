"""Rights, and the line of the manifest for each that is missing."""

from __future__ import annotations

from agent.core.scaling.kubernetes.needed_rights import Right, manifest_lines, reporting, scaling, watching


def test_a_watch_reads_only_by_lists_and_a_count_is_only_patched() -> None:
    assert [one.verb for one in watching("ns", "apps", "deployments")] == ["list", "watch"]
    assert scaling("ns", "apps", "deployments") == Right("ns", "patch", "apps", "deployments", "scale")
    assert reporting("ns") == Right("ns", "create", "", "events")


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


def test_a_right_on_named_objects_is_asked_and_given_by_name() -> None:
    assert scaling("ns", "apps", "deployments", "chat") == Right("ns", "patch", "apps", "deployments", "scale", "chat")
    (line,) = manifest_lines([scaling("ns", "apps", "deployments", name) for name in ("a", "b")])
    assert line.endswith('resources: ["deployments/scale"], resourceNames: [a, b], verbs: [patch]}')
    (every,) = manifest_lines([scaling("ns", "apps", "deployments", name) for name in ("a", "")])
    assert "resourceNames" not in every
