"""Wheels and sdists: of the product, and of its bus contract (`wattscale-bus`), on which it depends.

hatchling builds both, from an environment that holds the entries of deploy/images/wheel.lock and nothing else, as the
images do: no build fetches anything by itself.
"""

from __future__ import annotations

import email
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

from deploy.releases.child_command import ReleaseError, output_of

BUS_PACKAGE = "bus_schemas"
PRODUCT_PACKAGES = ("agent", "deploy", "planner")
MUST_CARRY = ("deploy/py.typed", "deploy/helm/wattscale/Chart.yaml")
"""Files beside modules that a wheel of the product has lost if an ignore rule went wrong."""
BUS_MUST_CARRY = ("bus_schemas/py.typed", "bus_schemas/export/asyncapi.json")
OFFLINE = "without a network: deploy/images/wheels FOLDER where there is one, then --wheels FOLDER"


def build_tools(root: Path, folder: Path, wheels: Path | None) -> Path:
    """The Python of a new environment with what builds wheels, from an index by hash, or from ``wheels`` alone."""
    output_of([sys.executable, "-m", "venv", "--without-pip", folder], root, "tools that build the wheel")
    python = folder / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--quiet"]
    lock = root / "deploy/images/wheel.lock"
    if wheels is None:
        source: list[str | Path] = ["--require-hashes", "--only-binary", ":all:", "--requirement", lock]
        output_of([*pip, "install", "--no-deps", *source], root, f"deploy/images/wheel.lock ({OFFLINE})")
        return python
    names = wheels / "wheel.txt"
    if not names.is_file():
        raise ReleaseError(f"--wheels {wheels}: not filled; deploy/images/wheels {wheels} does it")
    source = ["--no-index", "--find-links", wheels, "--requirement", names]
    output_of([*pip, "install", "--no-deps", *source], root, f"--wheels {wheels}")
    return python


def build_product(root: Path, tools: Path, target: Path, version: str, variables: Mapping[str, str]) -> list[Path]:
    """Wheel and sdist of the product. Raises ReleaseError where the wheel is not what its metadata should say."""
    made = _build(root, tools, target, variables)
    _check_wheel(made[0], "wattscale", version, PRODUCT_PACKAGES, MUST_CARRY)
    return made


def build_bus(root: Path, tools: Path, target: Path, version: str, variables: Mapping[str, str]) -> list[Path]:
    """Wheel and sdist of `wattscale-bus`. Raises ReleaseError likewise."""
    made = _build(root / BUS_PACKAGE, tools, target, variables)
    _check_wheel(made[0], "wattscale-bus", version, (BUS_PACKAGE,), BUS_MUST_CARRY)
    return made


def _build(folder: Path, tools: Path, target: Path, variables: Mapping[str, str]) -> list[Path]:
    """The wheel and the sdist, in this order."""
    before = set(target.iterdir())
    output_of([tools, "-m", "hatchling", "build", "-d", target], folder, "the wheel", variables)
    made = sorted(set(target.iterdir()) - before, key=lambda path: path.suffix != ".whl")
    if [path.suffix for path in made] != [".whl", ".gz"]:
        raise ReleaseError(
            f"pyproject.toml: the build made {[path.name for path in made]}, not one wheel and one sdist"
        )
    return made


def _check_wheel(wheel: Path, name: str, version: str, packages: tuple[str, ...], must_carry: tuple[str, ...]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
        metadata_file = next(file for file in files if file.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(metadata_file))
    if (metadata["Name"], metadata["Version"]) != (name, version):
        raise ReleaseError(f"{wheel.name}: names itself {metadata['Name']} {metadata['Version']}, not {name} {version}")
    held = {file.partition("/")[0] for file in files} - {metadata_file.partition("/")[0]}
    if held != set(packages):
        raise ReleaseError(f"{wheel.name}: holds {', '.join(sorted(held))}, not {', '.join(sorted(packages))}")
    lost = [file for file in must_carry if file not in files]
    if lost:
        raise ReleaseError(f"{wheel.name}: lacks {lost[0]}; see [tool.hatch.build] in pyproject.toml and .gitignore")
