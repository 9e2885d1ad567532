"""Whether `agent`, `bus_schemas`, `deploy` and `planner` are this program's own code.

These are common names. Installing another distribution that has a package of such a name overwrites files without a
word, uninstalling it deletes them, and a folder of that name earlier on the search path hides the package.

Reads the folders ``NAME-VERSION.dist-info`` itself: ``importlib.metadata.packages_distributions`` takes 150 ms for what
takes 10 here, and every agent would wait for it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NAME = "wattscale"
BUS_NAME = "wattscale_bus"
SHARES = {NAME: ("agent", "deploy", "planner"), BUS_NAME: ("bus_schemas",)}
"""Our two distributions, as their folders name them, and the packages that each installs."""
PACKAGES = ("agent", "bus_schemas", "deploy", "planner")
ROOT = Path(__file__).parents[1]
"""Where the code that runs lies: the folder of packages of an installation, or a checkout."""
REMEDY = f"install {NAME} in a virtual environment of its own"


@dataclass(frozen=True, slots=True)
class Distribution:
    """An installed distribution: its name, its version, and its RECORD (one line for each file)."""

    name: str
    version: str
    record: Path

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def foreign_code(root: Path = ROOT) -> list[str]:
    """One line for each reason why code that would be imported is not ours; empty where all of it is.

    A checkout has no RECORD of these files: there, only their places are compared.
    """
    places = _places()
    own = _own(root, places)
    if gone := _missing_bus(own, places):
        return [gone]
    return [*_elsewhere(root, places, own), *_apart(own), *(line for one in own for line in _overwritten(one))]


def own_module(module: str) -> tuple[str, ...]:
    """The words that start one of our modules as a process, whichever folder that begins in.

    ``python -m`` looks into that folder first: an ``agent.py`` there would be imported in place of ours. The folder is
    looked into only where our code is found through it alone, as in a checkout that is not installed.
    """
    found = str(ROOT) in (sys.path if sys.flags.safe_path else sys.path[1:])
    return (sys.executable, *(("-P",) if found else ()), "-m", module)


def rival_claims(search_path: Sequence[str] | None = None) -> list[str]:
    """One line for each distribution that has a package of one of our names and not its own share, by RECORD."""
    lines = []
    for other in _distributions(sys.path if search_path is None else search_path):
        claimed = [package for package in _claimed(other) if package not in SHARES.get(other.name, ())]
        if claimed:
            lines.append(
                f"{other} in {other.record.parents[1]} also installs {' and '.join(claimed)}: "
                f"installing or removing it changes {NAME}'s files; {REMEDY}"
            )
    return lines


def _places() -> dict[str, Path]:
    """Where an import would find each package; without those that it would not find."""
    places = {}
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            places[package] = Path(next(iter(spec.submodule_search_locations)))
        elif spec is not None and spec.origin:
            places[package] = Path(spec.origin)
    return places


def _own(root: Path, places: Mapping[str, Path]) -> list[Distribution]:
    """Ours that are installed as files. The bus may lie in another folder: the system's, seen by an environment."""
    (bus,) = SHARES[BUS_NAME]
    below = bus in places and not (root / bus).exists()
    folders = {NAME: root, BUS_NAME: places[bus].parent if below else root}
    installed = _distributions(str(folder) for folder in folders.values())
    return [one for one in installed if folders.get(one.name) == one.record.parents[1]]


def _missing_bus(own: Sequence[Distribution], places: Mapping[str, Path]) -> str:
    """What brings the bus back; empty where it is there."""
    (package,) = SHARES[BUS_NAME]
    place = places.get(package)
    if place is not None and (place.is_file() or (place / "__init__.py").is_file()):
        return ""
    wanted = next((f"=={one.version}" for one in own if one.name == NAME), "")
    return f"the package {package} is missing: pip install --force-reinstall wattscale-bus{wanted}"


def _apart(own: Sequence[Distribution]) -> Iterator[str]:
    """Both work with exactly the same version of each other, as the product's requirement says."""
    versions = {one.name: one.version for one in own}
    product, bus = versions.get(NAME), versions.get(BUS_NAME)
    if product and bus and product != bus:
        yield f"{NAME} {product} does not work with wattscale-bus {bus}: pip install wattscale-bus=={product}"


def _elsewhere(root: Path, places: Mapping[str, Path], own: Sequence[Distribution]) -> Iterator[str]:
    homes = {package: one.record.parents[1] for one in own for package in SHARES[one.name]}
    for package, place in places.items():
        if os.path.realpath(place) != os.path.realpath(homes.get(package, root) / package):
            yield (
                f"{package} would be imported from {place}, which is not {NAME}'s: its code is in {root}; "
                f"take {place.parent} out of PYTHONPATH, or start elsewhere"
            )


def _overwritten(own: Distribution) -> Iterator[str]:
    root = own.record.parents[1]
    recorded = list(_recorded_code(own))
    different = [path for path, digest in recorded if not _intact(root / path, digest)]
    if not different:
        return
    touched = {path.partition("/")[0] for path in different}
    others = _distributions([str(root)])
    rivals = [str(other) for other in others if other.name != own.name and touched & set(_claimed(other))]
    why = f"overwritten by {' and '.join(rivals)}" if rivals else "changed or deleted after the installation"
    yield (
        f"{len(different)} of {len(recorded)} modules are not those of {own}, the first is {root / different[0]}: "
        f"{why}; {REMEDY}"
    )


def _distributions(search_path: Iterable[str]) -> Iterator[Distribution]:
    """What is installed in these folders and has a RECORD."""
    for folder in dict.fromkeys(search_path):
        # An archive, or a folder that does not exist, has none.
        for record in sorted(Path(folder).glob("*.dist-info/RECORD")):
            name, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
            yield Distribution(name.lower(), version, record)


def _claimed(distribution: Distribution) -> list[str]:
    """Which packages of our names it installs. Bytes, not lines: some RECORDs have thousands."""
    record = b"\n" + _content(distribution.record)
    return [name for name in PACKAGES if f"\n{name}/".encode() in record or f'\n"{name}/'.encode() in record]


def _recorded_code(own: Distribution) -> Iterator[tuple[str, str]]:
    """(path, SHA-256 in unpadded URL-safe base64) of each of our modules."""
    for line in _content(own.record).decode(errors="replace").splitlines():
        path, _, rest = line.partition(",")
        digest = rest.partition(",")[0]
        if path.partition("/")[0] in PACKAGES and path.endswith(".py") and digest.startswith("sha256="):
            yield path, digest.removeprefix("sha256=")


def _intact(file: Path, digest: str) -> bool:
    # Only a daemon's start needs these two.
    import base64
    import hashlib

    try:
        found = hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(found).rstrip(b"=").decode() == digest


def _content(record: Path) -> bytes:
    """Empty where it cannot be read: nothing is known then, and nothing refused."""
    try:
        return record.read_bytes()
    except OSError:
        return b""
