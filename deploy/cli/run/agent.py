"""`wattscale agent power|check|pod-of`: the node power agent, its preflight checks, and the pod of a process."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.cli.errors import UsageError
from deploy.cli.numbers import MOST_WATTS, number, whole

if TYPE_CHECKING:
    from agent.runtime.agent_file import AgentFile
    from deploy.compose.settings_loader import Loaded


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its sub-commands."""
    parser = subparsers.add_parser("agent", help="run or examine the power agent of one GPU node")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    power = commands.add_parser("power", help="carry out power decisions (or annotations) on this node's GPUs")
    _add_settings(power)
    power.add_argument(
        "--dry-run", action="store_const", const=True, dest="dry_run", help="log what would be set, and set nothing"
    )
    power.add_argument(
        "--on-exit", choices=("keep", "restore"), help="what a regular stop does with the caps (default: keep)"
    )
    power.add_argument(
        "--port",
        "--prometheus-port",
        dest="http__port",
        metavar="PORT",
        help="port of /metrics, /livez and /readyz (default 9101; 0: the system chooses one; none: no server)",
    )
    power.add_argument("--host", dest="http__host", metavar="HOST", help="address of these pages (default: all)")
    power.add_argument(
        "--state-file", type=Path, help="file for the limits found on GPUs before annotations capped them"
    )
    power.add_argument(
        "--lock-file", type=Path, help="a file on the host; a second agent waits until the first has ended"
    )
    power.add_argument("--log-level", choices=("debug", "info", "warning", "error"))
    power.set_defaults(run=_power)
    check = commands.add_parser("check", help="check this node: what the agent needs, what is missing, what to do")
    _add_settings(check)
    check.add_argument("--json", action="store_true", help="print the findings as JSON")
    check.set_defaults(run=_check)
    pod_of = commands.add_parser("pod-of", help="print the pod that a process or a cgroup file belongs to")
    what = pod_of.add_mutually_exclusive_group(required=True)
    what.add_argument("--pid", type=whole(1, 2**31 - 1), help="a process id, in the namespace of --proc-root")
    what.add_argument("--cgroup-file", type=Path, help="a file with the content of /proc/PID/cgroup")
    pod_of.add_argument(
        "--proc-root", type=Path, default=Path("/proc"), help="where the host's /proc is (default: /proc)"
    )
    pod_of.add_argument("--json", action="store_true", help="print JSON")
    pod_of.set_defaults(run=_pod_of)


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options of `power` and `check`; a ``__`` in a name separates a section of the settings file."""
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML settings file")
    parser.add_argument("--node", "--node-name", help="this node's Kubernetes name (default: NODE_NAME)")
    parser.add_argument("--driver", choices=("nvml", "simulated"), help="real GPUs, or simulated ones (default: nvml)")
    parser.add_argument(
        "--gpus", type=whole(1, 1024), dest="simulated__gpus", metavar="N", help="number of simulated GPUs"
    )
    parser.add_argument(
        "--nats-url", action="append", dest="nats__servers", metavar="URL", help="NATS server; repeat for several"
    )
    parser.add_argument(
        "--prefix", dest="nats__prefix", metavar="PREFIX", help="first token of all subjects (default: wattscale)"
    )
    parser.add_argument("--creds", type=Path, dest="nats__creds_file", metavar="FILE", help="credentials file (JWT)")
    parser.add_argument("--nkey", type=Path, dest="nats__nkey_seed_file", metavar="FILE", help="nkey seed file")
    parser.add_argument(
        "--user", dest="nats__user", metavar="NAME", help="user name; its password comes from WATTSCALE_NATS_PASSWORD"
    )
    parser.add_argument("--tls-ca", type=Path, dest="nats__tls_ca_file", metavar="FILE", help="certificate authority")
    parser.add_argument("--tls-cert", type=Path, dest="nats__tls_cert_file", metavar="FILE", help="client certificate")
    parser.add_argument(
        "--tls-key", type=Path, dest="nats__tls_key_file", metavar="FILE", help="key of the client certificate"
    )
    parser.add_argument(
        "--kubernetes", choices=("auto", "on", "off"), dest="kubernetes__mode", help="watch pods (default: auto)"
    )
    parser.add_argument("--kubeconfig", type=Path, dest="kubernetes__kubeconfig", metavar="FILE")
    parser.add_argument(
        "--proc-root",
        type=Path,
        dest="kubernetes__proc_root",
        metavar="FOLDER",
        help="where the host's /proc is mounted",
    )
    parser.add_argument("--pod-resources", type=Path, dest="kubernetes__pod_resources_socket", metavar="SOCKET")
    parser.add_argument(
        "--safe-default-watts",
        type=number(0, MOST_WATTS, above=True),
        dest="annotations__safe_default_watts",
        metavar="WATTS",
        help="limit to apply for an annotation that cannot be parsed",
    )


def settings_of(args: argparse.Namespace, *, in_child: bool = False) -> Loaded[AgentFile]:
    """Settings from file, environment and flags; ``in_child`` as in ``load``. Raises UsageError, one line a mistake."""
    from deploy.compose.agent_settings import load
    from deploy.compose.settings_layers import SettingsError

    skipped = {"run", "settings", "json"}
    flags: dict[str, Any] = {
        name.replace("__", "."): value for name, value in vars(args).items() if name not in skipped
    }
    if flags.get("node") is None and not _named_elsewhere(args):
        flags["node"] = os.environ.get("NODE_NAME")
    try:
        return load(args.settings, os.environ, flags, in_child=in_child)
    except SettingsError as error:
        raise UsageError(*error.problems) from error


def _named_elsewhere(args: argparse.Namespace) -> bool:
    return args.settings is not None or "WATTSCALE_AGENT_NODE" in os.environ


def _power(args: argparse.Namespace) -> int:
    from deploy.compose.lean_aiohttp import import_aiohttp

    import_aiohttp()
    from deploy.compose.agent_service import run_power

    return run_power(settings_of(args, in_child=True).settings)


def _check(args: argparse.Namespace) -> int:
    from deploy.cli.run.agent_check import run_check

    return run_check(settings_of(args).settings, as_json=args.json)


def _pod_of(args: argparse.Namespace) -> int:
    from deploy.cli.run.agent_pod_of import run_pod_of

    return run_pod_of(args.pid, args.cgroup_file, args.proc_root, as_json=args.json)
