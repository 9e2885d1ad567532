"""The agent's list on ``deploy/SECURITY.md``: what code, roles and chart give it, and no more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agent.runtime.health import MAX_CONNECTIONS, AgentHealthServer
from deploy.helm.chart_files import NODE, bus_files
from tests.integration.chart.rendered import CASES, Manifest, rendered

pytestmark = pytest.mark.xdist_group("chart")
PAGE = Path(__file__).resolve().parents[3] / "deploy" / "SECURITY.md"


class AlwaysReady:
    """A process that lacks nothing."""

    not_ready = ""


def listed(words: str) -> set[str]:
    """What the page names under these words."""
    (line,) = re.findall(rf"^- {re.escape(words)}[^:]*: ((?:.|\n  )*)$", PAGE.read_text(), re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", line))


def test_its_pages() -> None:
    server = AgentHealthServer(AlwaysReady(), bytes, host="127.0.0.1", port=0)
    assert listed(f"Pages, `GET` only, {MAX_CONNECTIONS} connections") == set(server.pages)


def test_its_permissions_on_the_bus() -> None:
    allowed: dict[str, Any] = bus_files()["users"]["agent"]["permissions"]
    for words, direction in (("On the bus it writes", "publish"), ("On the bus it hears", "subscribe")):
        assert listed(words) == {subject.replace(NODE, "NODE") for subject in allowed[direction]["allow"]}


@pytest.mark.parametrize("case", CASES)
def test_its_rights_in_the_cluster_and_on_the_node(case: str) -> None:
    release = rendered(case)
    roles = [*release.of("ClusterRole", "-agent"), *release.of("Role", "-agent")]
    given = {(verb, resource) for role in roles for rule in role["rules"] for verb, resource in _pairs(rule)}
    assert {f"{verb} {resource}" for verb, resource in given} == listed("In Kubernetes")
    (pod,) = [template["spec"] for component, template in release.pods() if component == "agent"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    host = {one["hostPath"]["path"]: mounts[one["name"]] for one in pod["volumes"] if "hostPath" in one}
    assert {path for path, only_read in host.items() if only_read} == listed("Of the node it reads")
    assert {path for path, only_read in host.items() if not only_read} == listed("Of the node it writes")
    assert set(container["securityContext"]["capabilities"]["add"]) == listed("Capabilities")


def _pairs(rule: Manifest) -> set[tuple[str, str]]:
    assert rule["apiGroups"] == [""]
    return {(verb, resource) for verb in rule["verbs"] for resource in rule["resources"]}
