"""planner/ARCHITECTURE.md speaks of the tree as it is: its paths, names and layers exist, and no room is left out."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PLANNER = ROOT / "planner"
PAGE = (PLANNER / "ARCHITECTURE.md").read_text(encoding="utf-8")
TOP_LEVEL = ("agent", "bus_schemas", "deploy", "planner", "tests")
CODE = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", PAGE, flags=re.DOTALL))
LINKS = re.findall(r"\]\(([^)#]+)\)", PAGE)


def resolved(path: str) -> Path:
    """Where a path on the page points: from the root when it begins with a top-level folder, else from planner/."""
    return (ROOT if path.split("/")[0] in (*TOP_LEVEL, "pyproject.toml") else PLANNER) / path


def definitions(file: Path) -> dict[str, ast.stmt]:
    """Classes, functions and constants at the top of a module, by name."""
    found: dict[str, ast.stmt] = {}
    for each in ast.parse(file.read_text(encoding="utf-8")).body:
        match each:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                found[name] = each
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = each
    return found


def members(kind: ast.ClassDef) -> set[str]:
    """Fields and properties of a class."""
    fields = {
        each.target.id for each in kind.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    }
    return fields | {each.name for each in kind.body if isinstance(each, ast.FunctionDef)}


FILES = [*PLANNER.rglob("*.py"), ROOT / "bus_schemas" / "units.py"]
ALL = {name: node for file in FILES for name, node in definitions(file).items()}


@pytest.mark.parametrize("path", sorted({each for each in CODE if "/" in each or each.endswith((".py", ".toml"))}))
def test_every_path_on_the_page_exists(path: str) -> None:
    assert resolved(path).exists()


@pytest.mark.parametrize("link", LINKS)
def test_every_link_leads_somewhere(link: str) -> None:
    assert (PLANNER / link).exists()


@pytest.mark.parametrize(("name", "path"), re.findall(r"^\| `(\w+)` \| `([\w/]+\.py)` \|", PAGE, flags=re.MULTILINE))
def test_every_name_is_defined_in_the_file_beside_it(name: str, path: str) -> None:
    assert name in definitions(resolved(path))


@pytest.mark.parametrize("name", sorted({each for each in CODE if re.fullmatch(r"[A-Z]\w+(\.\w+)?", each)}))
def test_every_class_and_field_exists(name: str) -> None:
    kind, _, field = name.partition(".")
    assert kind in ALL
    node = ALL[kind]
    assert not field or (isinstance(node, ast.ClassDef) and field in members(node))


def test_the_layers_are_those_of_the_import_law() -> None:
    law = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
    layers = {each["containers"][0]: each["layers"] for each in law if each.get("containers")}
    for package in ("planner", "agent"):
        written = re.search(rf"^{package}: +(.+)$", PAGE, flags=re.MULTILINE)
        assert written is not None
        plain = [re.sub(r" \| \(\w+\)|[()]", "", layer) for layer in layers[package]]
        assert written[1] == " > ".join(plain)


def test_no_room_is_left_out() -> None:
    rooms = {str(file.parent.relative_to(PLANNER)) for file in PLANNER.rglob("__init__.py")} - {"."}
    assert rooms <= {each.rstrip("/") for each in CODE}
