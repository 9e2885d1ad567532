"""The previous release's chart and this one, with the same values: what an upgrade replaces, a rollback too."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.previous.previous_contract import RELEASE
from tests.integration.chart.rendered import CHART, NAMESPACE, Manifest, RefusedError, Rendered, template
from tests.integration.chart.test_upgrade import FIXED, _workloads

pytestmark = pytest.mark.xdist_group("chart")
VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted((RELEASE / "values").glob("*-values.yaml"))}
NEEDED: dict[str, Any] = yaml.safe_load((RELEASE / "upgrade-values.yaml").read_text())
(PACKAGE,) = RELEASE.glob("wattscale-*.tgz")
cases = pytest.mark.parametrize("case", VALUES)


def rendered_by(chart: Path, case: str, *extra: str) -> Rendered:
    """A case of the previous release by one of both charts."""
    return template("w", str(chart), "--namespace", NAMESPACE, "--values", str(VALUES[case]), *extra)


@functools.cache
def both(case: str) -> tuple[Rendered, Rendered]:
    """Before and after: after with what the values need besides."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as added:
        yaml.safe_dump(NEEDED.get(case, {}), added)
        added.flush()
        return rendered_by(PACKAGE, case), rendered_by(CHART, case, "--values", added.name)


@cases
def test_its_values_render_and_every_object_of_it_stays(case: str) -> None:
    before, after = both(case)
    assert _names(before) <= _names(after), "an upgrade would delete it"
    added = {kind for kind, _ in _names(after) - _names(before)}
    assert added <= {"ConfigMap"}, "only dashboards are new"


@pytest.mark.parametrize("case", NEEDED)
def test_a_value_that_it_did_not_have_is_asked_for_by_name_before_anything_is_sent(case: str) -> None:
    with pytest.raises(RefusedError, match=r"nats\.auth\.agentSecret: name the Secret with the agents' files"):
        rendered_by(CHART, case)


@cases
@pytest.mark.parametrize("back", [False, True], ids=["upgrade", "rollback"])
def test_every_workload_is_replaced_in_order_or_not_at_all(case: str, back: bool) -> None:
    before, after = reversed(both(case)) if back else both(case)
    for key, old in _workloads(before).items():
        new = _workloads(after)[key]
        for part in FIXED[key[0]]:
            assert old["spec"].get(part) == new["spec"].get(part), (key, part)
        # A cap is in force in the GPU; the node's old agent has ended before the new one starts.
        if key[0] == "DaemonSet":
            assert new["spec"]["updateStrategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
        assert old["spec"].get("strategy") == new["spec"].get("strategy")
        assert old["spec"].get("updateStrategy") == new["spec"].get("updateStrategy")
    # The bus' own servers change: their earlier image does not start with the chart's configuration.
    if all(key == ("StatefulSet", "w-wattscale-nats") for key in _changed(before, after)):
        assert case not in NEEDED
        return
    # Only what holds credentials is replaced: each pod gets its own files of the Secret.
    assert case in NEEDED


@cases
def test_both_releases_read_the_same_settings_so_that_either_may_run_with_them(case: str) -> None:
    before, after = both(case)
    for end in ("-planner", "-agent", *(f"-connector-{name}" for name in _connectors(case))):
        old, new = ([one["data"] for one in release.of("ConfigMap", end)] for release in (before, after))
        assert old == new, end


def test_there_are_no_definitions_of_kinds_that_an_upgrade_would_leave_behind() -> None:
    """Helm installs `crds/` once and never upgrades it: the chart has none, and its custom kinds are the operator's."""
    assert not (CHART / "crds").exists()
    for case in VALUES:
        for found in both(case):
            kinds = {one["kind"] for one in found.manifests if one["apiVersion"].startswith("monitoring.coreos.com/")}
            assert kinds <= {"PodMonitor", "PrometheusRule"}
            assert not found.of("CustomResourceDefinition")


def _names(release: Rendered) -> set[tuple[str, str]]:
    return {(one["kind"], one["metadata"]["name"]) for one in release.manifests}


def _changed(before: Rendered, after: Rendered) -> list[tuple[str, str]]:
    new: dict[tuple[str, str], Manifest] = _workloads(after)
    rows = _workloads(before).items()
    return [key for key, old in rows if old["spec"]["template"] != new[key]["spec"]["template"]]


def _connectors(case: str) -> list[str]:
    return list(yaml.safe_load(VALUES[case].read_text()).get("connectors", {}))
