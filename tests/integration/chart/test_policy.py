"""checkov over every case of the chart: what it refuses is skipped with a reason in ``policy-skips.yaml``, or fails.

Nightly: the run takes ten seconds, but making its environment of 290 MB takes minutes.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.chart.rendered import CASES, NAMESPACE, Manifest, rendered
from tests.tools.manifest_tools import policy_checker

pytestmark = [pytest.mark.xdist_group("chart"), pytest.mark.nightly, pytest.mark.timeout(1200)]
SKIPS = Path(__file__).parent / "policy-skips.yaml"
CLUSTER_WIDE = ("ClusterRole", "ClusterRoleBinding", "APIService")
ROOT_POD: Manifest = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "careless", "namespace": "somewhere"},
    "spec": {"hostPID": True, "containers": [{"name": "one", "image": "x:latest"}]},
}


def test_each_refusal_has_its_reason_and_each_reason_its_refusal(tmp_path: Path) -> None:
    skips: dict[str, dict[str, str]] = yaml.safe_load(SKIPS.read_text())
    assert all(len(reason) > 10 for reasons in skips.values() for reason in reasons.values())
    for case in CASES:
        _write(tmp_path / f"{case}.yaml", [_placed(one) for one in rendered(case).manifests])
    passed, refused = _checked(tmp_path)
    assert passed > 1000
    components = {_resource(one): _component(one) for case in CASES for one in rendered(case).manifests}
    used: set[tuple[str, str]] = set()
    unexplained = []
    for check, name, resource in refused:
        reasons = skips.get(check, {})
        key = next((key for key in (components[resource], "*") if key in reasons), None)
        if key is None:
            unexplained.append(f"{check} ({name}): {resource}")
        else:
            used.add((check, key))
    assert unexplained == []
    assert used == {(check, key) for check, reasons in skips.items() for key in reasons}, "a skip that excuses nothing"


def test_a_careless_pod_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "pod.yaml", [ROOT_POD])
    _, refused = _checked(tmp_path)
    assert {check for check, _, _ in refused} >= {"CKV_K8S_17", "CKV_K8S_14", "CKV_K8S_20", "CKV_K8S_28"}


def _write(file: Path, found: list[Manifest]) -> None:
    file.write_text(yaml.safe_dump_all(found))


def _placed(one: Manifest) -> Manifest:
    """With its namespace, as Helm installs it."""
    if one["kind"] in CLUSTER_WIDE:
        return one
    return {**one, "metadata": {"namespace": NAMESPACE, **one["metadata"]}}


def _resource(one: Manifest) -> str:
    """As checkov names it."""
    metadata = _placed(one)["metadata"]
    return ".".join((one["kind"], metadata.get("namespace", "default"), metadata["name"]))


def _component(one: Manifest) -> str:
    return str(one["metadata"].get("labels", {}).get("app.kubernetes.io/component", ""))


def _checked(folder: Path) -> tuple[int, list[tuple[str, str, str]]]:
    """How many checks passed, and (check, its name, resource) of each that did not."""
    done = subprocess.run(
        [
            *(str(policy_checker()), "--framework", "kubernetes", "--skip-download"),
            *("--compact", "--quiet", "--output", "json", "--directory", str(folder)),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report["summary"]["parsing_errors"] == 0
    refused = report["results"]["failed_checks"]
    return report["summary"]["passed"], [(one["check_id"], one["check_name"], one["resource"]) for one in refused]
