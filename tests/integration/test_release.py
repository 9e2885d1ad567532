"""`deploy/release` makes what it says, in one folder; `wattscale-bus` installs alone, and with `wattscale` in any
order, without a network."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


OWN = """
import deploy.installed_files as own
print(own.ROOT)
print(own.foreign_code())
print(own.rival_claims())
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
    where = Environment.made(tmp_path, offered(tmp_path / "offered", ["nats-py", "pydantic"]))
    assert f"Successfully installed wattscale-bus-{version()}" in where.pip("install", "--no-index", wheels(release)[1])
    where.holds_the_bus_alone()


@pytest.mark.parametrize(
    "order",
    [
        "product first",
        pytest.param("bus first", marks=pytest.mark.nightly),
        pytest.param("both", marks=pytest.mark.nightly),
    ],
)
def test_product_and_bus_are_installed_in_any_order(order: str, release: Path, tmp_path: Path) -> None:
    where = Environment.made(tmp_path, offered(tmp_path / "offered", ["nats-py", "pydantic"]))
    product, bus = wheels(release)
    if order == "product first":
        where.pip("install", "--no-index", "--no-deps", product)
        assert "wattscale-bus, which is not installed" in where.pip("check", code=1)
        assert where.wattscale(code=2).startswith("wattscale: the package bus_schemas is missing: pip install ")
    if order in ("bus first", "product first"):
        where.pip("install", "--no-index", bus)
    where.pip("install", "--no-index", "--find-links", str(release), f"wattscale=={version()}")
    where.is_whole(version())
    where.pip("uninstall", "--yes", "wattscale")
    where.holds_the_bus_alone()


@pytest.mark.nightly
def test_both_are_upgraded_together_and_either_is_removed(release: Path, tmp_path: Path) -> None:
    where = Environment.made(tmp_path, offered(tmp_path / "offered", ["nats-py", "pydantic"]))
    where.pip("install", "--no-index", "--find-links", str(release), f"wattscale=={version()}")
    later = tmp_path / "later"
    later.mkdir()
    for wheel in wheels(release):
        renumbered(Path(wheel), later, "99.0")
    upgrade = ("install", "--no-index", "--find-links", str(later), "--upgrade")
    where.pip(*upgrade, "wattscale")
    where.is_whole("99.0")
    where.pip("install", "--no-index", "--no-deps", wheels(release)[1])
    assert f"requirement wattscale-bus==99.0, but you have wattscale-bus {version()}" in where.pip("check", code=1)
    assert f"wattscale 99.0 does not work with wattscale-bus {version()}" in where.wattscale("agent", "power", code=2)
    where.pip(*upgrade, "wattscale-bus")
    where.is_whole("99.0")
    where.pip("uninstall", "--yes", "wattscale")
    where.holds_the_bus_alone()
    where.pip(*upgrade, "wattscale")
    where.pip("uninstall", "--yes", "wattscale-bus")
    assert "wattscale 99.0 requires wattscale-bus, which is not installed" in where.pip("check", code=1)
    remedy = where.wattscale(code=2).strip().rpartition(": pip ")[2]
    assert remedy == "install --force-reinstall wattscale-bus==99.0"
    where.pip(*remedy.split(), "--no-index", "--find-links", str(later), "--no-deps")
    where.is_whole("99.0")


@pytest.mark.nightly
def test_an_upgrade_from_one_distribution_with_both_says_what_to_do(release: Path, tmp_path: Path) -> None:
    """pip installs the bus first and then removes the old product, with the bus' files in its list."""
    where = Environment.made(tmp_path, offered(tmp_path / "offered", ["nats-py", "pydantic"]))
    with_both(wheels(release), old := tmp_path / "wattscale-0.0.1-py3-none-any.whl")
    where.pip("install", "--no-index", "--no-deps", str(old))
    links = ("--no-index", "--find-links", str(release))
    where.pip("install", *links, f"wattscale=={version()}")
    remedy = where.wattscale(code=2).strip().rpartition(": pip ")[2]
    where.pip(*remedy.split(), *links, "--no-deps")
    where.is_whole(version())


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


@dataclass(frozen=True, slots=True)
class Environment:
    """A new virtual environment; ``site``: its folder of packages."""

    python: Path
    site: Path

    @classmethod
    def made(cls, folder: Path, packages: Path) -> Environment:
        """Without pip, and with what is in ``packages``."""
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True, timeout=WITHIN_S)
        (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        (site / "offered.pth").write_text(f"{packages}\n")
        return cls(folder / "venv" / "bin" / "python", site)

    def pip(self, *words: str, code: int = 0) -> str:
        """What pip prints."""
        start = (sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check")
        # Modules are compiled when they are imported: few of them are.
        return answered([*start, *words, *(["--no-compile"] if words[0] == "install" else [])], code)

    def wattscale(self, *words: str, code: int) -> str:
        """What the program prints, `--version` unless it is given words."""
        return answered([str(self.python.parent / "wattscale"), *(words or ("--version",))], code)

    def is_whole(self, number: str) -> None:
        """Both are there with this version, each with its own files, and nothing claims those of another."""
        assert f"wattscale {number}\nbus contract v1\n" in self.wattscale(code=0)
        self.pip("check")
        found = answered([str(self.python), "-I", "-c", OWN]).splitlines()
        assert found == [str(self.site), "[]", "[]"]
        files = {name: recorded(self.site, name, number) for name in ("wattscale", "wattscale_bus")}
        assert files["wattscale"] & {"agent", "bus_schemas", "deploy", "planner"} == {"agent", "deploy", "planner"}
        assert files["wattscale_bus"] & {"agent", "bus_schemas", "deploy", "planner"} == {"bus_schemas"}

    def holds_the_bus_alone(self) -> None:
        """Each of its modules is imported."""
        first, others = answered([str(self.python), "-I", "-c", IMPORTS]).splitlines()
        assert first == f"VirtualConnectorClient {self.site / 'bus_schemas' / '__init__.py'}"
        assert others == "[]"
        assert rival_claims([str(self.site)]) == []
        self.pip("check")


def answered(command: Sequence[str], code: int = 0) -> str:
    """What a command prints that ends with this code, without the variables that would show it this checkout."""
    environment = {name: text for name, text in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=WITHIN_S)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + (done.stderr if code else "")


def wheels(release: Path) -> tuple[str, str]:
    """The product's and the bus'."""
    names = (f"{name}-{version()}-py3-none-any.whl" for name in ("wattscale", "wattscale_bus"))
    product, bus = (str(release / name) for name in names)
    return product, bus


def recorded(site: Path, name: str, number: str) -> set[str]:
    """The first folders of what a distribution installed."""
    record = site / f"{name}-{number}.dist-info" / "RECORD"
    return {line.partition("/")[0] for line in record.read_text().splitlines()}


def renumbered(wheel: Path, folder: Path, number: str) -> None:
    """The same wheel as another version. pip installs it by its metadata and its list of files."""
    old, target = version(), folder / wheel.name.replace(version(), number)
    with zipfile.ZipFile(wheel) as before, zipfile.ZipFile(target, "w") as after:
        for name in before.namelist():
            content = before.read(name)
            if ".dist-info/" in name:
                text = content.decode().replace(f"Version: {old}\n", f"Version: {number}\n")
                content = (
                    text.replace(f"bus=={old}", f"bus=={number}").replace(f"-{old}.dist", f"-{number}.dist").encode()
                )
            after.writestr(name.replace(f"-{old}.dist", f"-{number}.dist"), content)


def with_both(both: tuple[str, str], target: Path) -> None:
    """One wheel with the files of product and bus, as `wattscale 0.0.1` without a requirement."""
    info = "wattscale-0.0.1.dist-info"
    with zipfile.ZipFile(target, "w") as after:
        for wheel in both:
            with zipfile.ZipFile(wheel) as before:
                for name in before.namelist():
                    if ".dist-info/" not in name:
                        after.writestr(name, before.read(name))
        after.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: wattscale\nVersion: 0.0.1\n")
        after.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        after.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*after.namelist(), f"{info}/RECORD"]))


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
