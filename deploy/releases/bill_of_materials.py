"""What the product is made of: as CycloneDX 1.6 in JSON (https://cyclonedx.org/docs/1.6/json/), and a list of licences.

Parts are the entries of the lock files. Those that ship have the scope `required`; those that only test or build it are
`excluded`, which is the format's word for parts that do not run in production.
"""

from __future__ import annotations

import tomllib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deploy.advisories import NoDataError, locked, plain_name
from deploy.releases.child_command import ReleaseError
from deploy.releases.licences import Installed, Licence

SHIPPED_LOCKS = ("deploy/requirements.lock", "deploy/images/agent.lock", "deploy/images/planner.lock")
OTHER_LOCKS = ("deploy/images/wheel.lock", "tests/requirements.lock")
REQUIREMENT_ENDS = " [<>=!~;"
PRODUCT, BUS = "wattscale", "wattscale-bus"
PROJECTS = ("pyproject.toml", "bus_schemas/pyproject.toml")
UNSTATED = "unknown: not installed where the release was made"


@dataclass(frozen=True, slots=True)
class LockedPart:
    """A locked package. ``licence`` is None where it is not installed here, as with parts of other systems."""

    name: str
    version: str
    locks: tuple[str, ...]
    licence: Licence | None
    read_from: str
    """The installed version whose metadata states the licence; empty without one."""

    @property
    def ships(self) -> bool:
        """Whether any installation of the product holds it."""
        return any(lock in SHIPPED_LOCKS for lock in self.locks)

    @property
    def purl(self) -> str:
        """Its package URL, which is also its reference in the document."""
        return f"pkg:pypi/{self.name}@{quote(self.version, safe='')}"


def parts(root: Path, installed: Mapping[str, Installed]) -> list[LockedPart]:
    """All parts by name and version.

    Raises ReleaseError for a lock that cannot be read, and for an installed part that ships and states no licence.
    """
    places: dict[tuple[str, str], list[str]] = {}
    try:
        for lock in (*SHIPPED_LOCKS, *OTHER_LOCKS):
            for entry in locked(root / lock):
                places.setdefault(entry, []).append(lock)
    except NoDataError as error:
        raise ReleaseError(str(error)) from error
    found = []
    for (name, version), locks in sorted(places.items()):
        here = installed.get(name)
        licence = here.licence if here else None
        part = LockedPart(name, version, tuple(locks), licence, here.version if here and licence else "")
        if part.ships and here and not licence:
            raise ReleaseError(
                f"{locks[0]}: {name} {here.version} ships and its metadata state no licence; read its text"
            )
        found.append(part)
    return found


def document(
    version: str, revision: str, created: str, found: Sequence[LockedPart], direct: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The document; the same input makes the same one.

    ``created`` is a time of RFC 3339; ``direct`` has what each of our distributions asks for (``direct_requirements``).
    """
    own, bus = _own_part("application", PRODUCT, version), _own_part("library", BUS, version)
    locked_purls = {name: [part.purl for part in found if part.ships and part.name == name] for name in _names(direct)}
    locked_purls[BUS] = [bus["purl"]]
    needed = {name: sorted(purl for one in asked for purl in locked_purls[one]) for name, asked in direct.items()}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, f'wattscale {version} {revision}')}",
        "version": 1,
        "metadata": {
            "timestamp": created,
            "tools": {"components": [{"type": "application", "name": "wattscale deploy/release", "version": version}]},
            "component": {**own, "properties": [{"name": "wattscale:revision", "value": revision}]},
        },
        "components": [{**bus, "scope": "required"}, *(_component(part) for part in found)],
        "dependencies": [
            {"ref": own["purl"], "dependsOn": needed[PRODUCT]},
            {"ref": bus["purl"], "dependsOn": needed[BUS]},
        ],
    }


def direct_requirements(root: Path) -> dict[str, list[str]]:
    """Normalised names of what the product and the bus ask for, in the base and in all extras but those of tests and
    tools."""
    direct = {}
    for file in PROJECTS:
        project = tomllib.loads((root / file).read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        ships = [one for name in extras if name not in ("test", "dev") for one in extras[name]]
        names = {plain_name(_leading_name(requirement)) for requirement in (*project["dependencies"], *ships)}
        direct[project["name"]] = sorted(names - {PRODUCT})
    return direct


def licence_list(version: str, found: Sequence[LockedPart]) -> str:
    """Name, version and licence of every part, those that ship first."""
    lines = [f"{PRODUCT} {version}: Apache-2.0", f"{BUS} {version}: Apache-2.0", "", "Parts that ship", ""]
    lines += [_line(part) for part in found if part.ships]
    lines += ["", "Parts that only test or build it", ""]
    lines += [_line(part) for part in found if not part.ships]
    return "\n".join(lines) + "\n"


def _names(direct: Mapping[str, Sequence[str]]) -> set[str]:
    return {name for asked in direct.values() for name in asked}


def _own_part(kind: str, name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{name}@{quote(version, safe='')}"
    licenses = _licenses(Licence(expression="Apache-2.0"))
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl, "licenses": licenses}


def _leading_name(requirement: str) -> str:
    ends = [requirement.find(end) for end in REQUIREMENT_ENDS if end in requirement]
    return requirement[: min(ends, default=len(requirement))]


def _line(part: LockedPart) -> str:
    other = f" (as version {part.read_from} states)" if part.read_from not in ("", part.version) else ""
    return f"{part.name} {part.version}: {part.licence or UNSTATED}{other}"


def _component(part: LockedPart) -> dict[str, Any]:
    properties = [{"name": "wattscale:lock", "value": lock} for lock in part.locks]
    if part.read_from not in ("", part.version):
        properties.append({"name": "wattscale:licence-of-version", "value": part.read_from})
    return {
        "type": "library",
        "bom-ref": part.purl,
        "name": part.name,
        "version": part.version,
        "purl": part.purl,
        "scope": "required" if part.ships else "excluded",
        **({"licenses": _licenses(part.licence)} if part.licence else {}),
        "properties": properties,
    }


def _licenses(licence: Licence) -> list[dict[str, Any]]:
    if licence.expression:
        return [{"expression": licence.expression}]
    return [{"license": {"id": licence.spdx_id} if licence.spdx_id else {"name": licence.name}}]
