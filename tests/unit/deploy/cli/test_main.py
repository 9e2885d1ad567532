"""The command line without a bus: bad input is one line and exit code 2, and help needs no client library."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.cli.command_parser import CommandParser
from deploy.cli.errors import UsageError
from deploy.cli.main import COMMANDS, build_parser, main
from deploy.cli.steer.control import replicas_of


def test_pinned_replicas_are_read_by_pool() -> None:
    assert replicas_of(["prefill=2", "decode=0"]) == {"prefill": 2, "decode": 0}


@pytest.mark.parametrize("word", ["prefill", "=2", "prefill=", "prefill=-1", "prefill=two"])
def test_a_pin_that_is_no_count_is_refused_by_its_text(word: str) -> None:
    with pytest.raises(UsageError, match="POOL=N"):
        replicas_of([word])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["budget", "set", "nan", "--nats-url", "nats://127.0.0.1:1"], "watts"),
        (["budget", "set", "-5", "--nats-url", "nats://127.0.0.1:1"], "watts"),
        (["status", "--nats-url", "http://127.0.0.1:1"], "http://127.0.0.1:1"),
        (["status", "--nats-url", "nats://127.0.0.1:1", "--creds", "a", "--nkey", "b"], "--creds and --nkey"),
        (["status", "--nats-url", "nats://127.0.0.1:1", "--tls-cert", "a"], "--tls-key"),
        (["status", "--nats-url", "nats://127.0.0.1:1", "--user", "me"], "WATTSCALE_NATS_PASSWORD"),
        (["deployment", "pin", "d", "prefill", "--nats-url", "nats://127.0.0.1:1"], "POOL=N"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    try:
        code = main(arguments)
    except SystemExit as stop:  # argparse's own way out
        code = int(stop.code or 0)
    err = capsys.readouterr().err
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_a_bus_that_cannot_be_reached_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--nats-url", "nats://127.0.0.1:1"]) == 3
    assert "127.0.0.1:1" in capsys.readouterr().err


def test_a_login_without_its_package_names_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nkeys", None)
    assert main(["status", "--nats-url", "nats://127.0.0.1:1", "--creds", "a"]) == 2
    assert "pip install 'wattscale[nkeys]'" in capsys.readouterr().err


def test_without_any_bus_known_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("WATTSCALE_NATS_URL", raising=False)
    assert main(["status"]) == 2
    assert "--nats-url" in capsys.readouterr().err


def test_every_command_explains_itself() -> None:
    assert "up" in build_parser().format_help()


def test_each_module_registers_the_commands_that_the_table_gives_it() -> None:
    for name, commands in COMMANDS.items():
        words = CommandParser(prog="wattscale").add_subparsers()
        importlib.import_module(name).register(words)
        assert tuple(words.choices) == commands


def test_an_agent_loads_no_other_command() -> None:
    code = (
        "import sys; from deploy.cli.main import main; main(['agent', 'pod-of', '--cgroup-file', '/dev/null']);"
        "print(sorted({m.split('.')[2] for m in sys.modules if m.startswith('deploy.cli.') and m.count('.') > 2}),"
        "'deploy.cli.run.planner' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "['run'] False"


def test_help_loads_no_client_library() -> None:
    code = (
        "import sys; from deploy.cli.main import build_parser; build_parser();"
        "print([m for m in ('nats', 'aiohttp', 'numpy', 'rich', 'kubernetes_asyncio', 'pynvml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
