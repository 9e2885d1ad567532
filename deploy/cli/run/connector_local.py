"""`wattscale connector local`: the workers of one deployment as processes of this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.cli.errors import UsageError


def add_local(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the sub-command. Returns its parser, for the options of the bus."""
    local = commands.add_parser(
        "local",
        help="keep a deployment's workers as processes of this machine",
        description="Starts and drains worker processes as the deployment's scaling decisions say, from a command "
        "template for each pool. What runs is recorded in the state folder: a connector that starts again adopts it.",
    )
    local.add_argument("--settings", type=Path, metavar="FILE", required=True, help="YAML settings file")
    local.add_argument("--state-folder", type=Path, metavar="FOLDER", help="what was started, and the workers' logs")
    local.add_argument(
        "--on-exit", choices=("keep", "drain"), help="what an orderly stop does with the workers (default: keep)"
    )
    local.add_argument("--host", dest="http__host", metavar="HOST", help="address of /livez, /readyz and /metrics")
    local.add_argument(
        "--port",
        dest="http__port",
        metavar="PORT",
        help="port of these pages (default 9102; 0: the system chooses one; none: no server)",
    )
    local.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    local.set_defaults(run=_local)
    return local


def _local(args: argparse.Namespace) -> int:
    from deploy.compose.connectors.local_service import load_local, run_local
    from deploy.compose.settings_layers import SettingsError

    flags = {name.replace("__", "."): value for name, value in vars(args).items() if name not in ("run", "settings")}
    try:
        settings = load_local(args.settings, flags).settings
    except SettingsError as error:
        raise UsageError(*error.problems) from error
    return run_local(settings)
