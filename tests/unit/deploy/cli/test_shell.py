"""Versions, shell completion and the manual page come from the same definitions as the commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import run
from tests.property.deploy.commands import commands

ROOT = Path(__file__).parents[4]


def test_the_versions_of_program_contract_and_server() -> None:
    done = run("--version")
    program, contract, server = done.out.splitlines()
    assert done.code == 0
    assert program.startswith("wattscale 0.")
    assert contract == "bus contract v1"
    assert server.startswith("nats-server v2.")


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    script = tmp_path / "wattscale"
    done = run("completion", "bash")
    assert done.code == 0
    script.write_text(done.out)
    ask = (
        f"source {script}; COMP_WORDS=(wattscale {{}}); COMP_CWORD=$((${{{{#COMP_WORDS[@]}}}}-1));"
        " _shtab_wattscale; echo ${{COMPREPLY[@]}}"
    )
    for typed, offered in (("sta", "status"), ("budget s", "set"), ("status --js", "--json")):
        line = ask.format(typed)
        shown = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=60, check=True)
        assert offered in shown.stdout.split(), (typed, shown)


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh"])
def test_other_shells_know_the_commands_too(shell: str) -> None:
    done = run("completion", shell)
    assert done.code == 0
    assert "simulate" in done.out


def test_the_manual_page_names_every_command() -> None:
    done = run("manual")
    assert done.code == 0
    assert done.out.startswith(".TH WATTSCALE")
    page = done.out.replace("\\-", "-")
    for one in commands():
        assert f"wattscale {' '.join(one.words)}" in page.replace("\\fR", "").replace("\\fI\\,", ""), one
    assert "--ttft-quantile" in page


@pytest.mark.parametrize(("words", "module"), [(("completion", "bash"), "shtab"), (("manual",), "argparse_manpage")])
def test_a_missing_package_is_named(words: tuple[str, ...], module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (module, f"{module}.manpage"):
        monkeypatch.setitem(sys.modules, name, None)
    done = run(*words)
    assert done.code == 2
    assert "pip install 'wattscale[shell]'" in done.one_line()


def test_a_terminal_that_cannot_show_a_character_shows_its_number() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.cli.main", "prove", "--help"],
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "0", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2026" in done.stdout
