"""`wattscale config show`: every setting in force, and where it came from."""

from __future__ import annotations

import argparse
import json

from deploy.cli.run.planner import add_settings, loaded


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("config", help="settings in force, and where each came from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    show = commands.add_parser("show", help="print every setting of the planner with its origin; secrets are masked")
    add_settings(show)
    show.add_argument("--json", action="store_true", help="print JSON")
    show.set_defaults(run=_show)


def _show(args: argparse.Namespace) -> int:
    rows = loaded(args).rows()
    if args.json:
        print(json.dumps({path: {"value": value, "from": origin} for path, value, origin in rows}, indent=2))
        return 0
    width = max(len(path) for path, _, _ in rows)
    for path, value, origin in rows:
        print(f"{path:<{width}}  {json.dumps(value)}  ({origin})")
    return 0
