"""Whatever stands on the command line: an exit code and a line, and never a traceback.

Every command under drawn arguments, on a bus with streams: hostile strings for each of its options and arguments, files
that are none, numbers that are none. Commands that run until they are stopped get one mistake in any case.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import random
import sys
from collections.abc import Iterator

import pytest

from deploy.cli import bus_connection
from deploy.demo.last_run import LastRun, remember
from deploy.nats.embedded import EmbeddedServer
from tests.command_line import run
from tests.empty_home import no_bus_known
from tests.property.deploy.commands import Command, commands

WORDS = (
    *(
        "",
        " ",
        "-",
        "--",
        "=",
        "x",
        "a b",
        "a.b",
        "a*b",
        ">",
        "..",
        "/",
        "\t",
        "\n",
        "\x1b[31m",
        "dé",
        "名",
        "x" * 5000,
    ),
    *("nan", "inf", "-inf", "1e309", "-1", "0", "1e-9", "9" * 40, "٣", "1_0", "[1", "{a: b", "&a *a", "==", "\udcff"),
    *(
        "/dev/zero",
        "/dev/full",
        "/bin/ls",
        "/tmp",
        "/proc/self/mem",
        "/nowhere/at/all",
        "~",
        "%s%n",
        "!!python/name:os",
    ),
    *(
        "http://a",
        "nats://",
        "nats://[::1",
        "nats://a:b",
        "a b@c",
        "tls://127.0.0.1:99999",
        "nats://,,",
        "prefill=2",
        "!!a",
    ),
    *("prefill=", "=3", "sites.a.budget_watts=[1", "interval_s=[1", "bus.servers={", "a.b.c=1", "*=1", "@.b=1"),
    *("interval_s==", "interval_s=2020-13-45", "sites={a: 1, a: 2}", "interval_s=.nan", "bus={}", "sites.@=1"),
)
MISTAKES = {
    ("up",): ("--trace", "/nowhere.csv"),
    ("tour",): ("--only", "x"),
    ("simulate",): ("--trace", "/nowhere.csv"),
    ("plan-capacity",): ("--budget-watts", "9000", "--load", "/nowhere.csv"),
    ("profile",): ("--endpoint", "nowhere", "--output-dir", "/nowhere"),
    ("request", "apply"): ("-f", "/nowhere.yaml"),
    ("request", "status"): ("-f", "/nowhere.yaml"),
    ("request", "delete"): ("-f", "/nowhere.yaml"),
    ("request", "watch"): ("--kubeconfig", "/nowhere.yaml"),
    ("request", "upload"): ("--kubeconfig", "/nowhere.yaml"),
    ("request", "report"): ("--kubeconfig", "/nowhere.yaml"),
    ("prove",): ("--only", "x"),
    ("planner", "run"): ("--set", "no_such_setting=1"),
    ("agent", "power"): ("--settings", "/nowhere.yaml"),
    ("connector", "check"): ("--restart", "'"),
    ("connector", "local"): ("--settings", "/nowhere.yaml"),
    ("connector", "autoscaler"): ("--settings", "/nowhere.yaml"),
    ("archive",): ("--every-s", "0"),
    ("dashboard",): ("--port", "70000"),
    ("top",): ("--tab", "x"),
    ("load",): ("--trace", "/nowhere.csv"),
    ("engine",): ("--profile", "/nowhere"),
    ("agent", "check"): ("--settings", "/nowhere.yaml"),
}
WITHOUT_END = ("help", "follow")
CASES = 20
ALL = commands()


@pytest.fixture(autouse=True, scope="module")
def _on_a_bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A bus with streams is that of this user's last `up`; two lines stand on standard input."""
    with pytest.MonkeyPatch.context() as patch:
        no_bus_known(patch, tmp_path_factory.mktemp("home"))
        patch.chdir(tmp_path_factory.mktemp("here"))
        with asyncio.Runner() as loop:
            server = loop.run(EmbeddedServer().__aenter__())
            try:
                remember(LastRun(server.url, "wattscale", os.getpid(), "row", "prod-llama"))
                assert run("streams", "apply").code == 0
                # Much of what is drawn names no server: each would be waited for.
                patch.setattr(bus_connection, "CONNECT_TIMEOUT_S", 1.0)
                yield
            finally:
                loop.run(server.close())


def drawn(rng: random.Random, command: Command) -> list[str]:
    """Some of the command's options with hostile values, and its arguments, right or hostile."""
    words: list[str] = []
    options = [one for one in command.options if one.dest not in WITHOUT_END]
    for action in rng.sample(options, min(len(options), rng.randrange(4))):
        words += with_value(rng, action)
    if rng.random() < 0.5:
        return words + list(command.needed)
    return words + rng.choices(WORDS, k=rng.randrange(len(command.needed) + 2))


def with_value(rng: random.Random, action: argparse.Action) -> list[str]:
    name = rng.choice(action.option_strings)
    return [name] if action.nargs == 0 else [f"{name}={rng.choice(WORDS)}"]


@pytest.mark.parametrize("command", ALL, ids=lambda one: " ".join(one.words))
def test_of_a_command(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(f"arguments of {command}")
    for _ in range(CASES):
        monkeypatch.setattr(sys, "stdin", io.StringIO('{}\n{"isl": NaN}\n[1]\n'))
        words = [*command.words, *drawn(rng, command), *MISTAKES.get(command.words, ())]
        print(words)  # shown only where the next line raises
        done = run(*words)
        assert done.code in (0, 1, 2, 3), (words, done)
        assert "Traceback" not in done.err, (words, done)
        assert done.code == 0 or done.out or done.err.splitlines()[-1].startswith("wattscale: "), (words, done)
