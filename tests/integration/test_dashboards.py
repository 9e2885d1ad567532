"""The dashboards: as the code makes them, sound, with queries that Prometheus parses over metrics that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.runtime import agent_metrics
from deploy.observability.dashboards import Dashboard, dashboards, drifted
from planner.runtime.telemetry import planner_metrics
from tests.integration.prometheus_process import prometheus_binary

EVERY = dashboards()
UNITS = {"watt", "short", "percentunit", "ops", "reqps", "ms", "s", "h", "bool"}


def _panels(dashboard: Dashboard) -> list[dict[str, Any]]:
    return [panel for panel in dashboard.model()["panels"] if panel["type"] != "row"]


def _queries(dashboard: Dashboard) -> list[str]:
    return [target["expr"] for panel in _panels(dashboard) for target in panel["targets"]]


def test_files_are_as_the_code_makes_them() -> None:
    assert not drifted(), "run python -m deploy.observability.dashboards"


def test_uids_are_unique() -> None:
    assert len({one.uid for one in EVERY}) == len(EVERY)


@pytest.mark.parametrize("dashboard", EVERY, ids=lambda one: one.uid)
def test_a_dashboard_is_sound(dashboard: Dashboard) -> None:
    model = dashboard.model()
    ids = [panel["id"] for panel in model["panels"]]
    assert len(set(ids)) == len(ids)
    known = {variable["name"] for variable in model["templating"]["list"]}
    places = set()
    for panel in _panels(dashboard):
        assert panel["targets"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        places.add((panel["gridPos"]["x"], panel["gridPos"]["y"]))
    assert len(places) == len(_panels(dashboard)), "panels that cover each other"
    assert {name for query in _queries(dashboard) for name in re.findall(r"\$(\w+)", query)} <= known


def test_prometheus_parses_every_query(tmp_path: Path) -> None:
    prometheus_binary()  # promtool is in the same package
    tool = shutil.which("promtool")
    assert tool is not None
    queries = [query for one in EVERY for query in _queries(one)]
    rules = [{"record": f"dashboard:{at}", "expr": query} for at, query in enumerate(queries)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
    done = subprocess.run([tool, "check", "rules", str(file)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("dashboard", EVERY, ids=lambda one: one.uid)
def test_every_metric_exists(dashboard: Dashboard) -> None:
    known = {one.name for one in (*planner_metrics.OURS, *planner_metrics.DYNAMO.values())}
    known |= {one.name for one in agent_metrics.METRICS} | {one.name for one in agent_metrics.CONNECTOR_METRICS}
    texts = [*_queries(dashboard), *(one.query for one in dashboard.variables)]
    named = {name for text in texts for name in re.findall(r"\b(?:wattscale|dynamo_planner)_\w+", text)}
    assert named
    assert {name.removesuffix("_bucket") for name in named} <= known
