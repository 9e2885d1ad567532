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
from collections.abc import Sequence

from deploy.cli.command_parser import CommandParser
from deploy.cli.errors import CliError
from deploy.cli.versions import ShowVersions

COMMANDS = (
    "deploy.cli.run.up",
    "deploy.cli.inspect.running_bus",
    "deploy.cli.steer.budget",
    "deploy.cli.steer.control",
    "deploy.cli.cluster.streams",
    "deploy.cli.run.planner",
    "deploy.cli.cluster.config",
    "deploy.cli.run.agent",
    "deploy.cli.build.simulate",
    "deploy.cli.build.replay",
    "deploy.cli.build.prove",
    "deploy.cli.cluster.shell",
)

OWN = ("agent", "bus_schemas", "deploy", "planner")
EXTRAS = "pip install 'wattscale[local]' (or [planner], [agent])"


@functools.cache
def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; always the same one, because it takes 30 ms to build."""
    parser = CommandParser(
        prog="wattscale",
        description="Power-aware autoscaling for LLM inference: replicas and GPU power caps, decided together.",
    )
    parser.add_argument("--version", action=ShowVersions, help="print the versions of program, bus contract and server")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(name).register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 failed, 2 bad input, 3 no bus, 130 interrupted."""
    _open_standard_streams()
    try:
        args = build_parser().parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
    except CliError as error:
        from bus_schemas.visible_text import visible

        for line in error.lines:
            print(f"wattscale: {visible(line)}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in OWN:
            raise
        print(f"wattscale: this command needs {error.name}; install the extras: {EXTRAS}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except (OSError, BaseExceptionGroup) as error:
        if (ended := _output_ended(error)) is None:
            raise
        return ended
    return code


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
