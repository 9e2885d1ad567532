"""Which locked packages have a known fault, by advisories in OSV's format (https://ossf.github.io/osv-schema/).

Fails closed: without advisories for PyPI, or with a file that cannot be read, nothing is judged.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ENTRY = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


class NoDataError(Exception):
    """Nothing can be judged; the message is one line."""


def locked(lock: Path) -> list[tuple[str, str]]:
    """Normalised name and version of each entry: one package may have several, for several versions of Python.

    Raises NoDataError where the file cannot be read or names no package.
    """
    try:
        found = [(plain_name(name), version) for name, version in ENTRY.findall(lock.read_text(encoding="utf-8"))]
    except (OSError, UnicodeDecodeError) as error:
        raise NoDataError(f"{lock}: cannot be read: {error}") from error
    if not found:
        raise NoDataError(f"{lock}: names no package with a version")
    return found


def advisories(folder: Path) -> list[dict[str, Any]]:
    """Those in a folder that are not withdrawn. Raises NoDataError without one for PyPI, or for an unreadable file."""
    found, about_pypi = [], False
    for path in sorted(folder.rglob("*.json")):
        try:
            one = json.loads(path.read_text(encoding="utf-8"))
            packages = [affected["package"]["ecosystem"] for affected in one["affected"] if "package" in affected]
            one["id"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoDataError(f"{path}: is not an advisory in OSV's format: {error!r}") from error
        about_pypi = about_pypi or "PyPI" in packages
        if "withdrawn" not in one:
            found.append(one)
    if not about_pypi:
        raise NoDataError(f"{folder}: holds no advisory for PyPI; unpack an OSV export there")
    return found


def findings(packages: Sequence[tuple[str, str]], known: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each locked version that an advisory affects, in the order of names."""
    versions: dict[str, list[str]] = {}
    for name, version in packages:
        versions.setdefault(name, []).append(version)
    lines = {
        f"{name} {version}: {advisory['id']}{_words(advisory)}"
        for advisory in known
        for name, affected in _of_pypi(advisory)
        for version in versions.get(name, ())
        if _affects(affected, version)
    }
    return sorted(lines)


def plain_name(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _of_pypi(advisory: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for affected in advisory["affected"]:
        if affected.get("package", {}).get("ecosystem") == "PyPI":
            yield plain_name(affected["package"]["name"]), affected


def _affects(affected: Mapping[str, Any], version: str) -> bool:
    if version in affected.get("versions", ()):
        return True
    ranges = [one for one in affected.get("ranges", ()) if one.get("type") == "ECOSYSTEM"]
    # Without versions and ranges an advisory is about all of them.
    return any(_within(one["events"], version) for one in ranges) or not (ranges or affected.get("versions"))


def _within(events: Sequence[Mapping[str, str]], version: str) -> bool:
    """Whether a version lies in a range: introduced at one event, until it is fixed at another."""
    from packaging.version import Version

    mine, inside = Version(version), False
    ordered = sorted(((Version(at), kind) for event in events for kind, at in event.items()), key=lambda one: one[0])
    for at, kind in ordered:
        if kind == "introduced" and mine >= at:
            inside = True
        elif (kind == "fixed" and mine >= at) or (kind == "last_affected" and mine > at):
            inside = False
    return inside


def _words(advisory: Mapping[str, Any]) -> str:
    also = ", ".join(advisory.get("aliases", ()))
    summary = " ".join(str(advisory.get("summary", "")).split())
    return (f" ({also})" if also else "") + (f": {summary}" if summary else "")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 none affected, 1 some, 2 nothing judged."""
    parser = argparse.ArgumentParser(prog="deploy/audit", description=__doc__)
    parser.add_argument("--advisories", type=Path, required=True, metavar="FOLDER", help="advisories, a JSON file each")
    parser.add_argument("locks", type=Path, nargs="*", metavar="LOCK", help="lock files (default: all of the checkout)")
    options = parser.parse_args(arguments)
    locks = options.locks or sorted([*ROOT.glob("deploy/*.lock"), *ROOT.glob("*/*/*.lock"), *ROOT.glob("tests/*.lock")])
    if not locks:
        parser.error("no lock file was found; name one")
    try:
        known, found, count = advisories(options.advisories), [], 0
        for lock in locks:
            packages = locked(lock)
            count += len(packages)
            found += [f"{lock}: {line}" for line in findings(packages, known)]
    except NoDataError as error:
        print(f"deploy/audit: {error}", file=sys.stderr)
        return 2
    print("\n".join([*found, f"{len(found)} findings in {count} entries of {len(locks)} lock files"]))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
