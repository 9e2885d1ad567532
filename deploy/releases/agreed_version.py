"""The one version of the product, and the one of the bus contract: each place that names it must name the same."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.releases.child_command import ReleaseError
from deploy.yaml_text import read_yaml

HEADING = re.compile(r"^## (\S+)(?: \((.*)\))?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class NamedVersion:
    """A version as one file names it; ``where`` is the file from the checkout's root, and the place in it."""

    where: str
    version: str

    def __str__(self) -> str:
        return f"{self.where} is {self.version}"


@dataclass(frozen=True, slots=True)
class Versions:
    """What agreed: the product's version, as 0.1.0, and the contract's, as v1."""

    product: str
    contract: str


def agreed(root: Path) -> Versions:
    """Raises ReleaseError, naming both files, where two places disagree, or where a file does not name a version."""
    return Versions(_one(product_versions(root)), _one(contract_versions(root)))


def product_versions(root: Path) -> list[NamedVersion]:
    """The first is pyproject's, by which the others are judged."""
    project = "pyproject.toml"
    bus = "bus_schemas/pyproject.toml"
    chart = "deploy/helm/wattscale/Chart.yaml"
    return [
        _named(root, project, "project.version", lambda text: tomllib.loads(text)["project"]["version"]),
        _named(root, chart, "version", lambda text: read_yaml(text)["version"]),
        _named(root, chart, "appVersion", lambda text: read_yaml(text)["appVersion"]),
        _named(root, "CHANGELOG.md", "first section", lambda text: _found(HEADING, text)),
        _named(root, "deploy/README.md", "--tag", lambda text: _found(r"deploy/images/build .*--tag (\S+)", text)),
        _named(root, project, "project.dependencies", lambda text: _found(r'"wattscale-bus==([^"]+)"', text)),
        _named(root, bus, "project.version", lambda text: tomllib.loads(text)["project"]["version"]),
    ]


def contract_versions(root: Path) -> list[NamedVersion]:
    """The first is the one that every subject carries."""
    export = "bus_schemas/export/asyncapi.json"
    first = _named(root, "bus_schemas/subjects.py", "VERSION", lambda text: _found(r'(?m)^VERSION = "(.*)"$', text))
    return [
        first,
        _named(root, export, "id", lambda text: json.loads(text)["id"].rpartition(":")[2]),
        _named(root, export, "info.version", lambda text: "v" + json.loads(text)["info"]["version"].partition(".")[0]),
        *(
            _named(root, str(schema.relative_to(root)), "$id", lambda text: json.loads(text)["$id"].split(":")[2])
            for schema in sorted((root / "bus_schemas/export/schemas").glob("*.json"))
        ),
    ]


def changelog_section(root: Path, version: str) -> tuple[str, bool]:
    """A version's section of CHANGELOG.md, its heading first, and whether it is marked as unreleased.

    Raises ReleaseError where there is none, or nothing under its heading.
    """
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = list(HEADING.finditer(text))
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    for heading, end in zip(headings, ends, strict=True):
        if heading[1] == version:
            if not text[heading.end() : end].strip():
                raise ReleaseError(f"CHANGELOG.md: section {version} is empty; write what changed for the user")
            return text[heading.start() : end].rstrip() + "\n", heading[2] == "unreleased"
    raise ReleaseError(f"CHANGELOG.md: has no section {version}; begin one with '## {version}'")


def _one(named: Sequence[NamedVersion]) -> str:
    for other in named[1:]:
        if other.version != named[0].version:
            raise ReleaseError(f"versions differ: {named[0]}, and {other}; make them equal")
    return named[0].version


def _named(root: Path, file: str, place: str, version: Callable[[str], Any]) -> NamedVersion:
    try:
        return NamedVersion(f"{file} {place}", str(version((root / file).read_text(encoding="utf-8"))))
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ReleaseError(f"{file}: names no version at {place}: {error!r}") from error


def _found(pattern: str | re.Pattern[str], text: str) -> str:
    match = re.search(pattern, text)
    if match is None:
        raise LookupError("not found")
    return match[1]
