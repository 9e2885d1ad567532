"""Entry point of `wattscale`: builds the sub-commands, runs one, and turns errors into one line.

Must stay cheap to import: `wattscale --help` loads no client library.
"""

from __future__ import annotations

import argparse
import errno
import functools
import importlib
import io
import os
import sys
from collections.abc import Mapping, Sequence

from deploy.cli.command_parser import CommandParser
from deploy.cli.errors import CliError
from deploy.cli.versions import ShowVersions
from deploy.installed_files import PACKAGES, foreign_code

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "deploy.cli.run.up": ("up",),
    "deploy.cli.run.tour": ("tour",),
    "deploy.cli.inspect.running_bus": ("status", "decisions", "explain"),
    "deploy.cli.inspect.dashboard": ("dashboard",),
    "deploy.cli.inspect.top": ("top",),
    "deploy.cli.inspect.report_command": ("report",),
    "deploy.cli.run.archive": ("archive",),
    "deploy.cli.verify.verify_command": ("verify",),
    "deploy.cli.steer.budget": ("budget",),
    "deploy.cli.steer.control": ("deployment", "node"),
    "deploy.cli.cluster.streams": ("streams",),
    "deploy.cli.run.planner": ("planner",),
    "deploy.cli.cluster.config": ("config",),
    "deploy.cli.run.agent": ("agent",),
    "deploy.cli.run.connectors": ("connector",),
    "deploy.cli.run.engine": ("engine",),
    "deploy.cli.run.load": ("load",),
    "deploy.cli.build.simulate": ("simulate",),
    "deploy.cli.build.profile_command": ("profile",),
    "deploy.cli.build.request_command": ("request",),
    "deploy.cli.build.plan_capacity": ("plan-capacity",),
    "deploy.cli.build.replay": ("replay",),
    "deploy.cli.build.prove": ("prove",),
    "deploy.cli.cluster.shell": ("completion", "manual"),
}
"""Modules, and the commands that each registers: an agent does not load what only its neighbours need (3 MB)."""

DAEMONS = (
    ["planner", "run"],
    ["agent", "power"],
    ["connector", "virtual"],
    ["connector", "local"],
    ["connector", "kubernetes"],
    ["connector", "autoscaler"],
)
"""Commands that run no code before all of it was found to be ours."""
EXTRAS = "pip install 'wattscale[local]' (or [planner], [agent])"


@functools.cache
def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of all commands, or of the module of one; always the same, because all take 30 ms to build."""
    parser = CommandParser(
        prog="wattscale",
        description="Power-aware autoscaling for LLM inference: replicas and GPU power caps, decided together.",
    )
    parser.add_argument("--version", action=ShowVersions, help="print the versions of program, bus contract and server")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, commands in COMMANDS.items():
        if command is None or command in commands:
            importlib.import_module(name).register(subparsers)
    return parser


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    """The arguments. What does not begin with a command goes to the parser of all."""
    known = any(argv[:1] == [command] for commands in COMMANDS.values() for command in commands)
    return build_parser(argv[0] if known else None).parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 failed, 2 bad input, 3 no bus, 130 interrupted."""
    _open_standard_streams()
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:2] in DAEMONS and (foreign := foreign_code()):
        return _cannot_run(foreign)
    try:
        args = _parsed(words)
        code: int = args.run(args)
        sys.stdout.flush()
    except CliError as error:
        from bus_schemas.visible_text import visible

        for line in error.lines:
            print(f"wattscale: {visible(line)}", file=sys.stderr)
        return error.exit_code
    except ImportError as error:
        if not (lines := _unusable(error)):
            raise
        return _cannot_run(lines)
    except KeyboardInterrupt:
        return 130
    except (OSError, BaseExceptionGroup) as error:
        if (ended := _output_ended(error)) is None:
            raise
        return ended
    return code


def _cannot_run(lines: Sequence[str]) -> int:
    """Print why, and return the exit code. Imports nothing: `bus_schemas` may be what is not ours."""
    for line in lines:
        shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)
        print(f"wattscale: {shown}", file=sys.stderr)
    return 2


def _unusable(error: ImportError) -> list[str]:
    """What to do about a failed import, a line each; empty where the mistake is in our own code."""
    if error.name is None or error.name.split(".")[0] in PACKAGES:
        return foreign_code()
    if isinstance(error, ModuleNotFoundError):
        return [f"this command needs {error.name}; install the extras: {EXTRAS}"]
    return []


def _open_standard_streams() -> None:
    """Replace standard streams that the caller closed (``>&-``): files opened later would take their numbers."""
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # for as long as the process runs
        stream = getattr(sys, name)
        if mode == "w" and isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character (LC_ALL=C) shows its number.
            stream.reconfigure(errors="backslashreplace")


def _output_ended(error: BaseException) -> int | None:
    """The exit code where ``error`` says that our output cannot be written; None for any other error."""
    if isinstance(error, BaseExceptionGroup):
        codes = {_output_ended(one) for one in error.exceptions}
        return codes.pop() if len(codes) == 1 else None
    if not isinstance(error, OSError) or error.errno not in (errno.EPIPE, errno.ENOSPC) or error.filename:
        return None
    # What is still buffered would make Python complain at its exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if error.errno == errno.EPIPE:
        # The reader (head, less) has seen enough.
        return 0
    print(f"wattscale: standard output cannot be written: {error.strerror}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
