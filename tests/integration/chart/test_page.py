"""The commands of deploy/README.md: Helm takes each as it is written, and the build calls Docker as it says."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from deploy.kubernetes import try_run
from tests.integration.chart.rendered import CASES, NEWEST, run_helm, values_of
from tests.integration.evaluation.recorded_programs import recorded_programs
from tests.integration.images.recorded_docker import recorded_docker

pytestmark = pytest.mark.xdist_group("chart")
ROOT = Path(__file__).resolve().parents[3]


def _commands(program: str) -> list[list[str]]:
    page = (ROOT / "deploy" / "README.md").read_text()
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words[:1] == [program]]


def test_install_and_upgrade_render_with_their_own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = [words for words in _commands("helm") if words[1] in ("install", "upgrade")]
    assert [words[1] for words in found] == ["install", "upgrade"]
    for _, _, *arguments in found:
        values = [str(values_of("dynamo")) if one == "my-values.yaml" else one for one in arguments]
        text = run_helm(NEWEST, "template", *values)
        assert "namespace: power" in text
        assert "name: wattscale-planner" in text


def test_every_other_command_of_helm_exists_with_its_flags() -> None:
    found = [words for words in _commands("helm") if words[1] not in ("install", "upgrade")]
    assert [words[1] for words in found] == ["rollback", "uninstall"]
    for _, command, *arguments in found:
        known = run_helm(NEWEST, command, "--help")
        assert all(flag in known for flag in arguments if flag.startswith("--"))


def test_the_build_takes_base_and_tag_as_written(tmp_path: Path) -> None:
    ((program, *arguments),) = _commands("deploy/images/build")
    record = tmp_path / "record"
    digest = "0" * 64
    done = subprocess.run(
        [str(ROOT / program), *(one.replace("DIGEST", digest) for one in arguments)],
        env=recorded_docker(tmp_path, record),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"wattscale/{name}:0.1.0 sha256:made 1000\n" for name in ("planner", "agent"))
    builds = [line for line in record.read_text().splitlines() if line.startswith("build ")]
    assert len(builds) == 2
    for line in builds:
        assert f"--build-arg BASE=python:3.12-slim@sha256:{digest}" in line
        assert "--build-arg VERSION=0.1.0" in line


def test_the_evaluation_comes_up_is_verified_and_is_removed_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = recorded_programs(tmp_path, monkeypatch)
    monkeypatch.setattr(try_run, "ROOT", programs.checkout)
    found = _commands("deploy/kubernetes/try")
    assert [arguments for _, *arguments in found] == [[], ["--clean-test"], ["--down"]]
    assert [try_run.main(arguments) for _, *arguments in found] == [0, 0, 0]
    assert not programs.state.exists()


def test_the_page_names_every_case() -> None:
    assert len(CASES) == 5
