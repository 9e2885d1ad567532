"""`deploy/release` makes what it says, in one folder; and `wattscale-bus` installs alone, without a network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.installed_files import rival_claims
from tests.integration.chart.rendered import NEWEST, run_helm
from tests.kept_environment import NOT_TO_BE_HAD

pytestmark = [
    pytest.mark.xdist_group("release"),
    pytest.mark.skipif(
        not (ROOT := Path(__file__).resolve().parents[2]).joinpath(".git").exists(), reason="no checkout"
    ),
]
BASE = f"python:3.12-slim@sha256:{'0' * 64}"
WITHIN_S = 380
IMPORTS = """
import importlib, importlib.util, pkgutil
import bus_schemas.client
for module in pkgutil.walk_packages(bus_schemas.__path__, "bus_schemas."):
    importlib.import_module(module.name)
print(bus_schemas.client.VirtualConnectorClient.__name__, bus_schemas.__file__)
print([name for name in ("agent", "deploy", "planner") if importlib.util.find_spec(name)])
"""


def deploy_release(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command as a user gives it in a folder of theirs."""
    environment = {**os.environ, "WATTSCALE_VENV": sys.prefix, "PYTHONPATH": str(ROOT)}
    command = [str(ROOT / "deploy/release"), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=WITHIN_S
    )


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release's folder. Skips with the reason where packages cannot be had."""
    folder = tmp_path_factory.mktemp("release") / "made"
    run_helm(NEWEST, "version")  # the same Helm: skips where it cannot be had
    done = deploy_release("--base", BASE, folder.name, folder=folder.parent)
    if done.returncode != 0 and any(sign in done.stderr for sign in NOT_TO_BE_HAD):
        pytest.skip(f"no packages to build with: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "bus contract v1" in done.stdout.splitlines()[-1]
    return folder


def version() -> str:
    return importlib.metadata.version("wattscale")


def test_the_folder_holds_everything_and_sums_that_fit(release: Path) -> None:
    lines = [line.split("  ") for line in (release / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}
    assert sorted(sums) == sorted(
        [
            "CHANGES.md",
            "LICENCES.txt",
            "images.json",
            "sbom.cdx.json",
            "wattscale.1",
            f"wattscale-{version()}-py3-none-any.whl",
            f"wattscale-{version()}.tar.gz",
            f"wattscale-{version()}.tgz",
            f"wattscale_bus-{version()}-py3-none-any.whl",
            f"wattscale_bus-{version()}.tar.gz",
        ]
    )
    assert {name: hashlib.sha256((release / name).read_bytes()).hexdigest() for name in sums} == sums
    assert sorted(path.name for path in release.iterdir()) == sorted([*sums, "SHA256SUMS"])
    assert [path for path in release.parent.iterdir() if path != release] == [], "nothing is left beside it"


def test_texts_and_lists_are_of_this_version(release: Path) -> None:
    assert (release / "CHANGES.md").read_text().startswith(f"## {version()}")
    manual = (release / "wattscale.1").read_text()
    assert manual.startswith(".TH WATTSCALE")
    assert "planner" in manual
    images = json.loads((release / "images.json").read_text())["images"]
    assert [image["name"] for image in images] == [f"wattscale/planner:{version()}", f"wattscale/agent:{version()}"]
    for image in images:
        assert image["base"] == BASE
        assert image["revision"].removesuffix("-dirty") == git("rev-parse", "HEAD")
    bill = json.loads((release / "sbom.cdx.json").read_text())
    assert bill["metadata"]["component"]["version"] == version()
    names = {component["name"] for component in bill["components"]}
    assert {"nats-py", "pydantic", "hatchling", "pytest"} <= names
    licences = (release / "LICENCES.txt").read_text()
    assert re.search(r"^hatchling \S+: MIT$", licences, re.MULTILINE), "what builds the wheel states its licence too"


def test_the_packaged_chart_renders(release: Path) -> None:
    package = release / f"wattscale-{version()}.tgz"
    assert f"appVersion: {version()}" in run_helm(NEWEST, "show", "chart", str(package))
    with tarfile.open(package) as tar:
        assert "wattscale/files/dashboards/overview.json" in tar.getnames()
        assert {member.mtime for member in tar} == {int(git("log", "-1", "--format=%ct"))}
    assert "name: wattscale-planner" in run_helm(NEWEST, "template", "wattscale", str(package))


def test_an_orchestrator_installs_the_bus_alone_without_a_network(release: Path, tmp_path: Path) -> None:
    wheel = release / f"wattscale_bus-{version()}-py3-none-any.whl"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=WITHIN_S)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "offered.pth").write_text(f"{offered(tmp_path / 'offered', ['nats-py', 'pydantic'])}\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--no-index"]
    done = answered([*pip, str(wheel)])
    assert f"Successfully installed wattscale-bus-{version()}" in done
    first, others = answered([str(python), "-I", "-c", IMPORTS]).splitlines()
    assert first == f"VirtualConnectorClient {site / 'bus_schemas' / '__init__.py'}"
    assert others == "[]"
    (claim,) = rival_claims([str(site)])
    assert claim.startswith(f"wattscale_bus {version()} in {site} also installs bus_schemas")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "name a folder, or give --check"),
        (["--check", "new"], 2, "name a folder, or give --check"),
        (["new"], 2, "--base NAME@sha256:DIGEST is missing"),
        (["--base", "python:3.12", "new"], 2, "--base python:3.12: name the image by its digest"),
        (["--base", BASE, "old"], 2, "old: exists; name a new folder"),
        (["--base", BASE, "--helm", "old/helm", "new"], 1, "deploy/helm/wattscale: helm package: "),
        (["--base", BASE, "--wheels", "old", "new"], 1, "old: not filled; deploy/images/wheels"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_line_and_leaves_nothing(
    arguments: list[str], code: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    done = deploy_release(*arguments, folder=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    assert words in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def git(*arguments: str) -> str:
    """What git says of this checkout."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def answered(command: Sequence[str]) -> str:
    """Standard output of a command that must succeed, without the variables that would show it this checkout."""
    environment = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=WITHIN_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


def offered(folder: Path, names: Sequence[str]) -> Path:
    """A folder with links to what these packages need, as installed here, and to nothing else."""
    folder.mkdir()
    for part in closure(names):
        for top in {file.parts[0] for file in part.files or () if file.parts[0] not in ("..", "__pycache__")}:
            (folder / top).symlink_to(part.locate_file(top))  # type: ignore[arg-type]  # a path in all but its type
    return folder


def closure(names: Sequence[str]) -> Iterator[importlib.metadata.Distribution]:
    """The packages and all that they need, each once."""
    waiting, seen = list(names), set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            part = importlib.metadata.distribution(name)
            yield part
            needs = [Requirement(text) for text in part.requires or ()]
            waiting += [one.name for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})]
