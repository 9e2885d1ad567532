"""The bill of materials has what CycloneDX 1.6 requires, and every locked package once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from deploy.releases.bill_of_materials import OTHER_LOCKS, SHIPPED_LOCKS, direct_requirements, document, parts
from deploy.releases.bill_of_materials import licence_list as licence_text
from deploy.releases.child_command import ReleaseError
from deploy.releases.licences import Installed, Licence, installed

ROOT = Path(__file__).resolve().parents[4]
DIRECT = {"wattscale": ["aiohttp", "pytest", "wattscale-bus"], "wattscale-bus": ["numpy"]}
CREATED = "2026-11-26T16:13:54+00:00"
TEXT = {"type": "string", "minLength": 1}


def exact(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these fields and no other."""
    properties = {**required, **optional}
    return {"type": "object", "required": [*required], "properties": properties, "additionalProperties": False}


# The part of the published schema that our documents use. There too, an object takes no field that it does not know.
NAMED = {"type": {"enum": ["application", "library"]}, "name": TEXT}
ONE_LICENCE = {"oneOf": [exact({"id": {"enum": ["PSF-2.0", "MIT"]}}), exact({"name": TEXT})]}
LICENCES = {
    "oneOf": [
        {"type": "array", "items": exact({"license": ONE_LICENCE}), "minItems": 1},
        {"type": "array", "items": exact({"expression": TEXT}), "minItems": 1, "maxItems": 1},
    ]
}
PURL = {"type": "string", "pattern": r"^pkg:pypi/[a-z0-9-]+@[^@/ ]+$"}
COMPONENT = exact(
    NAMED,
    version=TEXT,
    purl=PURL,
    scope={"enum": ["required", "optional", "excluded"]},
    licenses=LICENCES,
    properties={"type": "array", "items": exact({"name": TEXT}, value={"type": "string"})},
    **{"bom-ref": TEXT},
)
METADATA = exact(
    {"timestamp": {"type": "string", "format": "date-time"}, "component": COMPONENT},
    tools=exact({"components": {"type": "array", "items": COMPONENT}}),
)
DEPENDENCY = exact({"ref": TEXT}, dependsOn={"type": "array", "uniqueItems": True, "items": TEXT})
SCHEMA = exact(
    {"bomFormat": {"const": "CycloneDX"}, "specVersion": {"const": "1.6"}},
    serialNumber={"pattern": "^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"},
    version={"type": "integer", "minimum": 1},
    metadata=METADATA,
    components={"type": "array", "uniqueItems": True, "items": COMPONENT},
    dependencies={"type": "array", "uniqueItems": True, "items": DEPENDENCY},
    **{"$schema": {"const": "http://cyclonedx.org/schema/bom-1.6.schema.json"}},
)
BUS = "pkg:pypi/wattscale-bus@0.1.0"
HERE = {
    "aiohttp": Installed("1.0", Licence(expression="Apache-2.0 AND MIT")),
    "numpy": Installed("2.4", Licence(name="BSD License")),
    "pytest": Installed("9", Licence(spdx_id="MIT")),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for lock in (*SHIPPED_LOCKS, *OTHER_LOCKS):
        (tmp_path / lock).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / lock).write_text("aiohttp==1.0 \\\n    --hash=sha256:aa\n")
    numpy = "numpy==2.4 ; python_full_version < '3.12'\nnumpy==2.5 ; python_full_version >= '3.12'\n"
    (tmp_path / SHIPPED_LOCKS[0]).write_text(f"{numpy}uvloop==3+a\n")
    (tmp_path / OTHER_LOCKS[1]).write_text("PyTest==9\n")
    return tmp_path


def bill(tree: Path) -> dict[str, Any]:
    return document("0.1.0", "abc", CREATED, parts(tree, HERE), DIRECT)


def test_a_bill_has_what_the_format_requires(tree: Path) -> None:
    jsonschema.validate(bill(tree), SCHEMA, format_checker=jsonschema.FormatChecker())


def test_a_part_has_its_scope_licence_and_locks(tree: Path) -> None:
    by_ref = {one["bom-ref"]: one for one in bill(tree)["components"]}
    assert {ref: one["scope"] for ref, one in by_ref.items()} == {
        "pkg:pypi/aiohttp@1.0": "required",
        "pkg:pypi/numpy@2.4": "required",
        "pkg:pypi/numpy@2.5": "required",
        "pkg:pypi/pytest@9": "excluded",
        "pkg:pypi/uvloop@3%2Ba": "required",
        BUS: "required",
    }
    assert by_ref.pop(BUS)["licenses"] == [{"expression": "Apache-2.0"}]
    licences = [one.get("licenses") for one in by_ref.values()]
    bsd = [{"license": {"name": "BSD License"}}]
    assert licences == [[{"expression": "Apache-2.0 AND MIT"}], bsd, bsd, [{"license": {"id": "MIT"}}], None]
    aiohttp, newer = by_ref["pkg:pypi/aiohttp@1.0"]["properties"], by_ref["pkg:pypi/numpy@2.5"]["properties"]
    assert [one["value"] for one in aiohttp] == [*SHIPPED_LOCKS[1:], OTHER_LOCKS[0]]
    assert newer[-1] == {"name": "wattscale:licence-of-version", "value": "2.4"}


def test_product_and_bus_depend_on_what_they_ask_for_and_ships(tree: Path) -> None:
    numpy = ["pkg:pypi/numpy@2.4", "pkg:pypi/numpy@2.5"]
    assert bill(tree)["dependencies"] == [
        {"ref": "pkg:pypi/wattscale@0.1.0", "dependsOn": ["pkg:pypi/aiohttp@1.0", BUS]},
        {"ref": BUS, "dependsOn": numpy},
    ]


def test_the_same_commit_makes_the_same_bill_and_another_one_another(tree: Path) -> None:
    assert bill(tree) == bill(tree)
    other = document("0.1.0", "abd", CREATED, parts(tree, HERE), DIRECT)
    assert other["serialNumber"] != bill(tree)["serialNumber"]


def test_the_list_names_each_licence(tree: Path) -> None:
    text = licence_text("0.1.0", parts(tree, HERE))
    ships, _, tests = text.partition("Parts that only test or build it")
    assert "numpy 2.5: BSD License (as version 2.4 states)\n" in ships
    assert "uvloop 3+a: unknown: not installed where the release was made\n" in ships
    assert tests == "\n\npytest 9: MIT\n"


def test_an_installed_part_that_ships_must_state_its_licence(tree: Path) -> None:
    with pytest.raises(ReleaseError, match=r"uvloop 3 ships and its metadata state no licence"):
        parts(tree, {**HERE, "uvloop": Installed("3", None)})
    assert len(parts(tree, {**HERE, "pytest": Installed("9", None)})) == 5


def test_a_lock_that_is_missing_is_named(tree: Path) -> None:
    (tree / SHIPPED_LOCKS[1]).unlink()
    with pytest.raises(ReleaseError, match=r"agent\.lock: cannot be read"):
        parts(tree, HERE)


def test_what_this_checkout_asks_for_is_locked_and_states_its_licence() -> None:
    found = parts(ROOT, installed(sys.path))
    ships = {part.name for part in found if part.ships}
    direct = direct_requirements(ROOT)
    assert direct["wattscale-bus"] == ["nats-py", "pydantic"]
    assert ships >= {"nats-py", "pydantic"}
    assert {"aiohttp", "nvidia-ml-py", "pyyaml"} <= set(direct["wattscale"]) & ships
    assert "wattscale-bus" in direct["wattscale"]
    assert not {"wattscale", "pytest"} & set(direct["wattscale"])
    here = {part.name: part for part in found if part.read_from}
    assert {"nats-py", "pydantic", "aiohttp"} <= set(here)
