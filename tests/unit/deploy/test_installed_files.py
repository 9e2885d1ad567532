"""The daemons run their own code only: what another distribution overwrote, deleted or hides is named, exit code 2."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.installed_files import PACKAGES, SHARES, foreign_code, rival_claims

CHECKOUT = Path(__file__).parents[3]
AGENT, PLANNER = ("agent", "power", "--node", "n", "--driver", "simulated"), ("planner", "run", "-c", "settings.yaml")
REMEDY = "install wattscale in a virtual environment of its own"


@dataclass(frozen=True, slots=True)
class Installation:
    """A folder of packages as pip leaves it, and a folder to start from."""

    site: Path
    work: Path

    def install(self, name: str, version: str, *paths: str) -> None:
        """Write the RECORD of a distribution that has these files."""
        lines = [f"{path},sha256={_digest(self.site / path)},{(self.site / path).stat().st_size}" for path in paths]
        info = self.site / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,", ""]))

    def rival(self, package: str) -> None:
        """Install `PACKAGE 2.1`, whose package is a single file."""
        (self.site / package / "__init__.py").write_text("# Another program.\n")
        self.install(package, "2.1", f"{package}/__init__.py")

    def run(self, *words: str, before: Path | None = None, alone: bool = False) -> subprocess.CompletedProcess[str]:
        """A command of this installation; ``before``: a folder that comes first on the search path; ``alone``: without
        the packages of the environment, which may hold a checkout of ours."""
        path = os.pathsep.join(str(folder) for folder in (before, self.site) if folder is not None)
        return subprocess.run(
            [sys.executable, *(["-S"] if alone else []), "-m", "deploy.cli.main", *words],
            cwd=self.work,
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _digest(file: Path) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=").decode()


@pytest.fixture
def copy(tmp_path: Path) -> Installation:
    """Our packages without any RECORD."""
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    for package in PACKAGES:
        shutil.copytree(CHECKOUT / package, site / package)
    return Installation(site, work)


@pytest.fixture
def installed(copy: Installation) -> Installation:
    """Our packages and the RECORDs of our two distributions."""
    for name, packages in SHARES.items():
        files = [path for package in packages for path in (copy.site / package).rglob("*") if path.suffix != ".pyc"]
        copy.install(name, "0.1.0", *sorted(str(path.relative_to(copy.site)) for path in files if path.is_file()))
    return copy


def owner(package: str) -> str:
    """The distribution that installs a package of ours."""
    return next(name for name, packages in SHARES.items() if package in packages)


def modules(site: Path, package: str) -> int:
    """How many modules the distribution has that installs this package."""
    return sum(1 for one in SHARES[owner(package)] for _ in (site / one).rglob("*.py"))


def remove(site: Path, name: str) -> None:
    """Uninstall one of ours, as pip does."""
    for package in SHARES[name]:
        shutil.rmtree(site / package)
    (info,) = site.glob(f"{name}-*.dist-info")
    shutil.rmtree(info)


@pytest.mark.parametrize(
    ("package", "daemon"), [("agent", AGENT), ("planner", PLANNER), ("deploy", AGENT), ("bus_schemas", PLANNER)]
)
def test_a_daemon_refuses_what_another_distribution_overwrote(
    installed: Installation, package: str, daemon: tuple[str, ...]
) -> None:
    installed.rival(package)
    done = installed.run(*daemon)
    assert done.returncode == 2
    assert done.stderr == (
        f"wattscale: 1 of {modules(installed.site, package)} modules are not those of {owner(package)} 0.1.0, "
        f"the first is {installed.site / package / '__init__.py'}: overwritten by {package} 2.1; {REMEDY}\n"
    )


def test_what_uninstalling_another_distribution_deleted_is_named(installed: Installation) -> None:
    all_of_them = modules(installed.site, "agent")
    for name in ("ports.py", "runtime/service.py"):
        (installed.site / "agent" / name).unlink()
    done = installed.run(*AGENT)
    assert done.returncode == 2
    assert done.stderr == (
        f"wattscale: 2 of {all_of_them} modules are not those of wattscale 0.1.0, the first is "
        f"{installed.site / 'agent' / 'ports.py'}: changed or deleted after the installation; {REMEDY}\n"
    )


@pytest.mark.parametrize("package", ["agent", "planner", "bus_schemas"])
def test_a_package_that_hides_ours_is_named(copy: Installation, package: str) -> None:
    other = copy.work.parent / "other"
    (other / package).mkdir(parents=True)
    (other / package / "__init__.py").touch()
    for daemon in (AGENT, PLANNER):
        done = copy.run(*daemon, before=other)
        assert done.returncode == 2
        assert done.stderr == (
            f"wattscale: {package} would be imported from {other / package}, which is not wattscale's: its code is in "
            f"{copy.site}; take {other} out of PYTHONPATH, or start elsewhere\n"
        )


def test_any_command_that_fails_for_it_says_so(installed: Installation) -> None:
    shutil.rmtree(installed.site / "planner" / "runtime")
    installed.rival("planner")
    done = installed.run("planner", "check")
    assert done.returncode == 2
    assert "overwritten by planner 2.1" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("command", [AGENT, PLANNER, ("--version",)])
def test_a_missing_bus_is_named_with_what_brings_it(installed: Installation, command: tuple[str, ...]) -> None:
    remove(installed.site, "wattscale_bus")
    done = installed.run(*command, alone=True)
    assert done.returncode == 2
    assert done.stderr == (
        "wattscale: the package bus_schemas is missing: pip install --force-reinstall wattscale-bus==0.1.0\n"
    )


def test_a_bus_of_another_version_is_refused(installed: Installation) -> None:
    (info,) = installed.site.glob("wattscale_bus-*.dist-info")
    info.rename(installed.site / "wattscale_bus-0.0.9.dist-info")
    for daemon in (AGENT, PLANNER):
        done = installed.run(*daemon)
        assert done.returncode == 2
        assert done.stderr == (
            "wattscale: wattscale 0.1.0 does not work with wattscale-bus 0.0.9: pip install wattscale-bus==0.1.0\n"
        )


def test_the_bus_may_be_installed_in_a_folder_of_its_own(installed: Installation) -> None:
    """As where an environment sees the packages of the system."""
    below = installed.work.parent / "below"
    below.mkdir()
    (info,) = installed.site.glob("wattscale_bus-*.dist-info")
    for one in (installed.site / "bus_schemas", info):
        one.rename(below / one.name)
    done = installed.run(*AGENT, before=below)
    assert done.stderr.startswith("wattscale: no source of limits")
    (below / "bus_schemas" / "units.py").write_text("# Another program.\n")
    assert "not those of wattscale_bus 0.1.0" in installed.run(*AGENT, before=below).stderr


@pytest.mark.parametrize("whole", ["installed", "copy"])
def test_a_whole_installation_and_a_copy_without_record_are_quiet(whole: str, request: pytest.FixtureRequest) -> None:
    done = request.getfixturevalue(whole).run(*AGENT)
    assert done.returncode == 2
    assert done.stderr.startswith("wattscale: no source of limits")
    assert len(done.stderr.splitlines()) == 1


def test_this_checkout_is_quiet() -> None:
    assert foreign_code() == []
    assert rival_claims() == []


def test_a_claim_on_whole_files_is_a_warning(installed: Installation) -> None:
    # Installed before ours: its files are the ones that were overwritten.
    installed.install("agent", "2.1", "agent/__init__.py", "deploy/__init__.py")
    warning = (
        f"agent 2.1 in {installed.site} also installs agent and deploy: installing or removing it changes wattscale's "
        f"files; {REMEDY}"
    )
    assert rival_claims([str(installed.site)]) == [warning]
    agent = installed.run(*AGENT)
    assert agent.stderr.splitlines()[0] == f"WARNING wattscale.agent: {warning}"
    assert "no source of limits" in agent.stderr
    (installed.work / "settings.yaml").write_text("log: {format: text}\ndeployments: {d: {profile: missing}}\n")
    planner = installed.run(*PLANNER)
    assert planner.stderr.splitlines()[0].endswith(f"planner.settings: {warning}")
    assert "missing" in planner.stderr.splitlines()[-1]
    assert "Traceback" not in agent.stderr + planner.stderr


def test_folders_that_are_none_and_distributions_of_other_names_claim_nothing(tmp_path: Path) -> None:
    archive = tmp_path / "packages.zip"
    archive.write_bytes(b"PK")
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "deploy.py").touch()
    Installation(tmp_path, tmp_path).install("agents", "1.0", "agents/deploy.py")
    assert rival_claims([str(archive), str(tmp_path / "missing"), str(tmp_path)]) == []


@pytest.mark.parametrize("module", ["deploy.profiling.limit_guard", "deploy.tour.part_process", "deploy.cli.main"])
def test_a_process_of_ours_begins_in_a_folder_with_names_like_ours(module: str, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    for package in PACKAGES:
        (foreign / f"{package}.py").write_text("raise SystemExit('not ours')")
    variables = {**os.environ, "PYTHONPATH": str(CHECKOUT)}

    def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, cwd=folder, env=variables, input="", capture_output=True, text=True, check=False, timeout=60
        )

    code = f"from deploy.installed_files import own_module; print(*own_module({module!r}), sep='\\n')"
    words = run(tmp_path, sys.executable, "-c", code).stdout.splitlines()
    assert words[-1] == module
    for options in ([], ["--help"]):
        done = run(foreign, *words, *options)
        assert "not ours" not in done.stderr
        assert "ModuleNotFoundError" not in done.stderr
