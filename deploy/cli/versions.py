"""`wattscale --version`: the versions that belong in every bug report."""

from __future__ import annotations

import argparse
import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

ANSWER_S = 5.0


class ShowVersions(argparse.Action):
    """Prints the versions and ends the process. They are looked up only then: one of them takes a child process."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:  # noqa: A002  # argparse's name
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print them."""
        print("\n".join(versions()))
        sys.stdout.flush()
        parser.exit()


def versions() -> list[str]:
    """Program, bus contract and server, one a line."""
    return [*program_versions(), _server()]


def program_versions() -> tuple[str, ...]:
    """Program and bus contract."""
    from bus_schemas.subjects import VERSION

    return f"wattscale {importlib.metadata.version('wattscale')}", f"bus contract {VERSION}"


def _server() -> str:
    """The first line of the server's own answer: the server that `wattscale up` would start."""
    from deploy.nats.binary import ServerMissingError, find_server

    try:
        binary = find_server()
    except ServerMissingError:
        return "nats-server: none on this machine"
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=ANSWER_S, check=True)  # noqa: S603  # found by us
    except (OSError, subprocess.SubprocessError):
        return f"{binary}: does not answer"
    return done.stdout.strip().replace("nats-server: ", "nats-server ")
