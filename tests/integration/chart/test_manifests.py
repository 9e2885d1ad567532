"""Every manifest against the schemas of each Kubernetes that the chart takes, and custom kinds against ours."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest

from tests.integration.chart.rendered import CASES, Manifest, rendered
from tests.tools.manifest_tools import checker

pytestmark = pytest.mark.xdist_group("chart")
VERSIONS = ("1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37")
KINDS = Path(__file__).parent / "kinds"
IMAGES = Path(__file__).resolve().parents[3] / "deploy" / "images"
CHECK = """
import functools, json, sys
from kubernetes_validate import utils, validate
# Each schema is read once, not once for each manifest.
utils.schema_contents = functools.cache(utils.schema_contents)
given = json.load(sys.stdin)
for version in sys.argv[1:]:
    for case, one in given:
        try:
            validate(one, version, strict=True)
        except Exception as error:
            print(version, case, one["kind"], one["metadata"]["name"], type(error).__name__, str(error).splitlines()[0])
"""


def _of_kubernetes(one: Manifest) -> bool:
    return "." not in one["apiVersion"].split("/")[0] or one["apiVersion"].split("/")[0].endswith(".k8s.io")


@pytest.mark.long
def test_kubernetes_takes_every_manifest() -> None:
    found = [(case, one) for case in CASES for one in rendered(case).manifests if _of_kubernetes(one)]
    assert {one["kind"] for _, one in found} >= {"DaemonSet", "StatefulSet", "NetworkPolicy", "PodDisruptionBudget"}
    assert problems_of(found) == ""


def test_a_manifest_that_kubernetes_refuses_is_found() -> None:
    broken: Manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"prots": []}}
    problems = problems_of([("broken", broken)])
    assert [line.split()[0] for line in problems.splitlines()] == list(VERSIONS)
    assert "prots" in problems


def problems_of(found: list[tuple[str, Manifest]], versions: tuple[str, ...] = VERSIONS) -> str:
    """What these versions of Kubernetes refuse, a line each."""
    done = subprocess.run(
        [str(checker("python")), "-c", CHECK, *versions],
        input=json.dumps(found),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("case", CASES)
def test_custom_kinds_have_the_shape_of_their_schemas(case: str) -> None:
    for one in rendered(case).manifests:
        if not _of_kubernetes(one):
            # A kind without a schema fails here: there is no such file.
            jsonschema.validate(one, json.loads((KINDS / f"{one['kind']}.json").read_text()))


def test_dockerfiles_pass_their_linter() -> None:
    files = sorted(str(path) for path in IMAGES.glob("*.Dockerfile"))
    assert len(files) == 2
    done = subprocess.run(
        [str(checker("hadolint")), "--no-color", *files], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == ""
    assert done.returncode == 0
