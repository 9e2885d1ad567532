"""The chart as Helm renders it, by version and by the values that it ships for its cases."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.tools.manifest_tools import HELM, helm

CHART = Path(__file__).resolve().parents[3] / "deploy" / "helm" / "wattscale"
CASES = tuple(sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml")))
VERSIONS = tuple(HELM.values())
NEWEST = VERSIONS[-1]
NAMESPACE = "power"
Manifest = dict[str, Any]
Right = tuple[str, str, str]
"""Verb, API group and resource."""


@dataclass(frozen=True)
class Rendered:
    """All manifests of one release."""

    manifests: tuple[Manifest, ...]

    def of(self, kind: str, end: str = "") -> list[Manifest]:
        """Those of a kind, whose name ends in ``end``."""
        return [one for one in self.manifests if one["kind"] == kind and one["metadata"]["name"].endswith(end)]

    def one(self, kind: str, end: str = "") -> Manifest:
        """The only one of a kind whose name ends in ``end``."""
        (found,) = self.of(kind, end)
        return found

    def pods(self) -> list[tuple[str, Manifest]]:
        """(Component, pod template) of every workload."""
        kinds = ("Deployment", "DaemonSet", "StatefulSet")
        templates = [one["spec"]["template"] for one in self.manifests if one["kind"] in kinds]
        return [(one["metadata"]["labels"]["app.kubernetes.io/component"], one) for one in templates]

    def settings(self, end: str) -> str:
        """The text of the only file in a component's ConfigMap."""
        (text,) = self.one("ConfigMap", end)["data"].values()
        return str(text)


class RefusedError(Exception):
    """Helm refused the values or the chart; the message is its own."""


def rights(role: Manifest) -> set[Right]:
    """What a Role or ClusterRole gives."""
    return {
        (verb, group, resource)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def values_of(case: str) -> Path:
    """The file of a case's values."""
    return CHART / "ci" / f"{case}-values.yaml"


@functools.cache
def rendered(
    case: str, version: str = NEWEST, release: str = "w", extra: tuple[str, ...] = (), chart: Path = CHART
) -> Rendered:
    """A case. ``extra``: further arguments of `helm template`. Raises RefusedError."""
    arguments = (release, str(chart), "--namespace", NAMESPACE, "--values", str(values_of(case)), *extra)
    return template(*arguments, version=version)


def template(*arguments: str, version: str = NEWEST) -> Rendered:
    """What `helm template` makes of these arguments. Raises RefusedError."""
    return Rendered(tuple(manifests(run_helm(version, "template", *arguments))))


def run_helm(version: str, *arguments: str) -> str:
    """Standard output of Helm. Raises RefusedError."""
    done = subprocess.run([str(helm(version)), *arguments], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise RefusedError(f"{done.stdout}\n{done.stderr}")
    return done.stdout


def manifests(text: str) -> Iterable[Manifest]:
    """The documents of a render, without empty ones."""
    return (one for one in yaml.load_all(text, Loader=yaml.CSafeLoader) if one)
