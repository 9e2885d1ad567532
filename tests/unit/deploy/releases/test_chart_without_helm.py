"""A check may go without the pinned Helm where it cannot be had; a release may not, nor with one that is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.releases.child_command import ReleaseError
from deploy.releases.release_run import add_chart

NOT_TO_BE_HAD = "import pytest\ndef helm(version): pytest.skip('no environment with helm: No matching distribution')\n"
ANOTHER_HASH = "import pytest\ndef helm(version): pytest.fail('no environment with helm: hashes do not match')\n"


def tree(folder: Path, tools: str) -> Path:
    (folder / "tests/tools").mkdir(parents=True)
    for package in ("tests", "tests/tools"):
        (folder / package / "__init__.py").touch()
    (folder / "tests/tools/manifest_tools.py").write_text(tools)
    return folder


def test_a_check_says_what_it_leaves_out(tmp_path: Path) -> None:
    (line,) = add_chart(tree(tmp_path, NOT_TO_BE_HAD), tmp_path, "0.1.0", None, may_lack=True)
    assert line.startswith("left out: the chart: the tests' Helm: ")
    assert "No matching distribution" in line


@pytest.mark.parametrize(("tools", "may_lack"), [(NOT_TO_BE_HAD, False), (ANOTHER_HASH, True)])
def test_anything_else_is_an_error(tools: str, may_lack: bool, tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"^the tests' Helm: [^\n]*; name one with --helm PROGRAM$"):
        add_chart(tree(tmp_path, tools), tmp_path, "0.1.0", None, may_lack=may_lack)


def test_a_chart_of_another_version_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "helm"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    (tmp_path / "deploy/helm/wattscale").mkdir(parents=True)
    with pytest.raises(ReleaseError, match=r"made no wattscale-0\.1\.0\.tgz"):
        add_chart(tmp_path, tmp_path, "0.1.0", program, may_lack=True)
