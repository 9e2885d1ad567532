"""Entry point of `wattscale`: builds the sub-commands, runs one, and turns errors into one line.

Must stay cheap to import: `wattscale --help` loads no client library.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence

from deploy.cli.errors import CliError

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
)

OWN = ("agent", "bus_schemas", "deploy", "planner")
EXTRAS = "pip install 'wattscale[local]' (or [planner], [agent])"


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="wattscale",
        description="Power-aware autoscaling for LLM inference: replicas and GPU power caps, decided together.",
    )
    version = importlib.metadata.version("wattscale")
    parser.add_argument("--version", action="version", version=f"wattscale {version}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(name).register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit codes: 0 done, 1 failed, 2 bad input, 3 no bus, 130 interrupted."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except CliError as error:
        print(f"wattscale: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in OWN:
            raise
        print(f"wattscale: this command needs {error.name}; install the extras: {EXTRAS}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has closed the pipe. Close ours too, or Python would complain at exit.
        sys.stderr.close()
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
