"""Upgrade and rollback: what Kubernetes would refuse or replace at once, and in which order things end and start."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest

from tests.integration.chart.rendered import CHART, Manifest, Rendered, rendered

pytestmark = pytest.mark.xdist_group("chart")
FIXED = {
    "Deployment": ("selector",),
    "DaemonSet": ("selector",),
    "StatefulSet": ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"),
}
"""Parts of a workload that Kubernetes does not let an upgrade change."""


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Rendered, Rendered]:
    """This version and the next one, with everything changed that a user may change: images and settings."""
    folder = tmp_path_factory.mktemp("next") / "wattscale"
    shutil.copytree(CHART, folder)
    chart = folder / "Chart.yaml"
    text = re.sub(r"^(version|appVersion): .*$", r"\1: 9.9.9", chart.read_text(), flags=re.MULTILINE)
    chart.write_text(text)
    changed = (
        "--set=planner.settings.interval_s=10",
        "--set=agent.settings.heartbeat_s=5",
        "--set=connectors.chat.settings.log_level=debug",
        "--set=images.nats.tag=9.9.9",
    )
    return rendered("dynamo"), rendered("dynamo", extra=changed, chart=folder)


def _workloads(release: Rendered) -> dict[tuple[str, str], Manifest]:
    return {(one["kind"], one["metadata"]["name"]): one for kind in FIXED for one in release.of(kind)}


@pytest.mark.parametrize("back", [False, True], ids=["upgrade", "rollback"])
def test_every_workload_is_updated_in_place(releases: tuple[Rendered, Rendered], back: bool) -> None:
    before, after = (_workloads(one) for one in (reversed(releases) if back else releases))
    assert before.keys() == after.keys()
    for key, old in before.items():
        new = after[key]
        for part in FIXED[key[0]]:
            assert _unversioned(old["spec"].get(part)) == _unversioned(new["spec"].get(part)), (key, part)
        assert old["spec"]["template"] != new["spec"]["template"], f"{key} does not take the new settings"


def _unversioned(part: Any) -> Any:
    assert "9.9.9" not in str(part), "a part that may not change names the version"
    return part


@pytest.mark.parametrize("back", [False, True], ids=["upgrade", "rollback"])
def test_no_step_leaves_caps_without_their_keeper(releases: tuple[Rendered, Rendered], back: bool) -> None:
    """Walks what Kubernetes does to each workload. A cap is in force in the GPU itself: only an agent changes it."""
    _, after = reversed(releases) if back else releases
    planner = after.one("Deployment", "-planner")["spec"]
    assert _least_running(planner["replicas"], planner["strategy"]["rollingUpdate"]) == planner["replicas"]
    # Of a node's two agents the old one has ended before the new one starts, and neither raises at its start.
    agents = after.one("DaemonSet")["spec"]["updateStrategy"]["rollingUpdate"]
    assert agents["maxSurge"] == 0
    assert agents["maxUnavailable"] == 1
    assert "on_exit" not in after.settings("-agent"), "an agent that restores limits when it stops"
    # One server at a time: with three replicas of each stream a majority stays, and no decision is lost.
    bus = after.one("StatefulSet")["spec"]
    assert bus["updateStrategy"]["type"] == "RollingUpdate"
    assert bus["replicas"] - 1 > bus["replicas"] / 2
    # Two connectors for one deployment would both carry its decisions out.
    assert after.one("Deployment", "-connector-chat")["spec"]["strategy"] == {"type": "Recreate"}


def _least_running(replicas: int, rolling: dict[str, int]) -> int:
    """The fewest ready replicas at any step of a rolling update, as the Deployment controller makes them."""
    old, new, least = replicas, 0, replicas
    while new < replicas:
        started = min(replicas + rolling["maxSurge"] - old - new, replicas - new)
        new += started
        ended = min(old, old + new - (replicas - rolling["maxUnavailable"]))
        assert started or ended, "the update can never proceed"
        old -= ended
        least = min(least, old + new)
    return least


def test_a_bus_with_three_servers_lets_one_be_drained_and_no_more(releases: tuple[Rendered, Rendered]) -> None:
    for release in releases:
        (bus,) = release.of("PodDisruptionBudget", "-nats")
        assert bus["spec"]["maxUnavailable"] == 1
        (planner,) = release.of("PodDisruptionBudget", "-planner")
        assert planner["spec"]["minAvailable"] == 1
