"""`wattscale connector virtual|kubernetes|local|autoscaler`: takes a deployment's scaling decisions to what scales it.

The first three carry decisions out and acknowledge them; `autoscaler` only answers the counts, for KEDA and HPA.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deploy.cli.errors import UsageError
from deploy.cli.numbers import number
from deploy.cli.run.connector_autoscaler import add_autoscaler
from deploy.cli.run.connector_check import add_check
from deploy.cli.run.connector_local import add_local

if TYPE_CHECKING:
    from pydantic import BaseModel

    from deploy.compose.settings_loader import Loaded

T = TypeVar("T", bound="BaseModel")


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command and its sub-commands."""
    parser = subparsers.add_parser("connector", help="take the scaling decisions of a deployment to what scales it")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_bus(add_local(commands))
    add_check(commands)
    virtual = commands.add_parser(
        "virtual", help="pass decisions on to clients of Dynamo's VirtualConnector, through etcd"
    )
    # A ``__`` in a name separates a section of the settings file.
    virtual.add_argument("--settings", type=Path, metavar="FILE", help="YAML settings file")
    virtual.add_argument("--deployment", metavar="NAME", help="the deployment whose decisions are carried out")
    virtual.add_argument("--namespace", metavar="NAME", help="Dynamo's namespace (default: the deployment's name)")
    virtual.add_argument(
        "--direction",
        choices=("to-dynamo", "from-dynamo"),
        help="from-dynamo: a Dynamo planner's decisions in etcd become pins of the deployment (default: to-dynamo)",
    )
    virtual.add_argument("--name", metavar="NAME", help="what acknowledgements call it (default: virtual on HOST)")
    virtual.add_argument(
        "--etcd",
        action="append",
        dest="etcd__endpoints",
        metavar="URL",
        help="etcd's address; repeat for several (default: http://127.0.0.1:2379)",
    )
    virtual.add_argument(
        "--etcd-user",
        dest="etcd__user",
        metavar="NAME",
        help="user of etcd; its password comes from --etcd-password-file, else WATTSCALE_ETCD_PASSWORD",
    )
    for option, name, text in (
        ("--etcd-password-file", "password_file", "file with the password of etcd's user"),
        ("--etcd-ca", "tls_ca_file", "certificate authority of etcd"),
        ("--etcd-cert", "tls_cert_file", "client certificate for etcd"),
        ("--etcd-key", "tls_key_file", "key of that certificate"),
    ):
        virtual.add_argument(option, type=Path, dest=f"etcd__{name}", metavar="FILE", help=text)
    _add_redis(virtual)
    _add_process(virtual)
    virtual.set_defaults(run=_virtual)
    _add_kubernetes(commands.add_parser("kubernetes", help="scale workers on Kubernetes through /scale"))
    _add_process(add_autoscaler(commands, _autoscaler))


def _add_redis(virtual: argparse.ArgumentParser) -> None:
    virtual.add_argument(
        "--store", choices=("etcd", "redis"), help="redis: the hash of Dynamo's proposed connector (default: etcd)"
    )
    virtual.add_argument("--model", metavar="NAME", help="with --store redis: the model in the key of the hash")
    virtual.add_argument(
        "--redis",
        dest="redis__url",
        metavar="URL",
        help="address of Redis, redis://HOST:PORT/DATABASE, or rediss:// with TLS (default: redis://127.0.0.1:6379)",
    )
    virtual.add_argument(
        "--redis-key-prefix", dest="redis__key_prefix", metavar="PREFIX", help="default: dynamo:planner:target"
    )
    virtual.add_argument(
        "--redis-user",
        dest="redis__user",
        metavar="NAME",
        help="user of Redis; the password comes from --redis-password-file, else WATTSCALE_REDIS_PASSWORD",
    )
    for option, name, text in (
        ("--redis-password-file", "password_file", "file with the password for Redis"),
        ("--redis-ca", "tls_ca_file", "certificate authority of Redis"),
        ("--redis-cert", "tls_cert_file", "client certificate for Redis"),
        ("--redis-key", "tls_key_file", "key of that certificate"),
    ):
        virtual.add_argument(option, type=Path, dest=f"redis__{name}", metavar="FILE", help=text)


def _add_kubernetes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML settings file")
    parser.add_argument("--deployment", metavar="NAME", help="the deployment whose decisions are carried out")
    parser.add_argument("--namespace", metavar="NAME", help="the Kubernetes namespace of the targets")
    parser.add_argument(
        "--graph", metavar="NAME", help="a DynamoGraphDeployment: each of its scaling adapters is a pool"
    )
    parser.add_argument(
        "--target",
        action="append",
        type=_target,
        metavar="POOL=RESOURCE.VERSION.GROUP/NAME",
        help="instead of --graph: where a pool's count is written, as in decode=deployments.v1.apps/chat-decode",
    )
    parser.add_argument(
        "--second-writer",
        choices=("wins", "loses"),
        help="whether a count that somebody else wrote stays (default: wins)",
    )
    parser.add_argument(
        "--wait-for-capacity",
        type=number(0, 1e6, above=True),
        dest="wait_for_capacity_s",
        metavar="SECONDS",
        help="how long pods may stay unschedulable before a decision fails for good (default: 600)",
    )
    parser.add_argument(
        "--annotate",
        action=argparse.BooleanOptionalAction,
        help="write each worker pod's planned power limit as an annotation, for Dynamo's Power Agent (default: no)",
    )
    parser.add_argument(
        "--restart-graphs",
        action=argparse.BooleanOptionalAction,
        help="carry out `wattscale deployment restart` on the graph (default: no)",
    )
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: the pod's account, else KUBECONFIG")
    parser.add_argument("--name", metavar="NAME", help="what acknowledgements call it (default: kubernetes on HOST)")
    _add_process(parser)
    parser.set_defaults(run=_kubernetes)


def _target(text: str) -> tuple[str, str]:
    pool, sign, target = text.partition("=")
    if not (pool and sign and target):
        raise argparse.ArgumentTypeError(f"{text!r} is not POOL=RESOURCE.VERSION.GROUP/NAME")
    return pool, target


def _add_process(virtual: argparse.ArgumentParser) -> None:
    _add_bus(virtual)
    virtual.add_argument("--host", dest="http__host", metavar="HOST", help="address of /livez, /readyz and /metrics")
    virtual.add_argument(
        "--port",
        dest="http__port",
        metavar="PORT",
        help="port of these pages (default 9102; 0: the system chooses one; none: no server)",
    )
    virtual.add_argument("--log-level", choices=("debug", "info", "warning", "error"))


def _add_bus(connector: argparse.ArgumentParser) -> None:
    connector.add_argument(
        "--nats-url", action="append", dest="nats__servers", metavar="URL", help="NATS server; repeat for several"
    )
    connector.add_argument(
        "--prefix", dest="nats__prefix", metavar="PREFIX", help="first token of all subjects (default: wattscale)"
    )
    connector.add_argument(
        "--inbox-prefix", dest="nats__inbox_prefix", metavar="PREFIX", help="prefix of the subjects of replies"
    )
    connector.add_argument(
        "--user", dest="nats__user", metavar="NAME", help="user of NATS; its password: WATTSCALE_NATS_PASSWORD"
    )
    for option, name, text in (
        ("--creds", "creds_file", "credentials file (JWT)"),
        ("--nkey", "nkey_seed_file", "nkey seed file"),
        ("--tls-ca", "tls_ca_file", "certificate authority of NATS"),
        ("--tls-cert", "tls_cert_file", "client certificate for NATS"),
        ("--tls-key", "tls_key_file", "key of that certificate"),
    ):
        connector.add_argument(option, type=Path, dest=f"nats__{name}", metavar="FILE", help=text)


def settings_of(args: argparse.Namespace, model: type[T]) -> Loaded[T]:
    """Settings from file, environment and flags. Raises UsageError, one line a mistake."""
    from deploy.compose.connectors.connector_settings import load
    from deploy.compose.settings_layers import SettingsError

    skipped = {"run", "settings", "target"}
    flags: dict[str, Any] = {
        name.replace("__", "."): value for name, value in vars(args).items() if name not in skipped
    }
    if targets := getattr(args, "target", None):
        flags["targets"] = dict(targets)
    try:
        return load(args.settings, os.environ, flags, model)
    except SettingsError as error:
        raise UsageError(*error.problems) from error


def _virtual(args: argparse.Namespace) -> int:
    from agent.connectors.connector_file import ConnectorFile
    from deploy.compose.connectors.virtual_service import run_virtual

    return run_virtual(settings_of(args, ConnectorFile).settings)


def _kubernetes(args: argparse.Namespace) -> int:
    from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
    from deploy.compose.connectors.kubernetes_service import run_kubernetes

    return run_kubernetes(settings_of(args, KubernetesFile).settings)


def _autoscaler(args: argparse.Namespace) -> int:
    from agent.connectors.autoscaler.autoscaler_file import AutoscalerFile
    from deploy.compose.connectors.autoscaler_service import run_autoscaler

    return run_autoscaler(settings_of(args, AutoscalerFile).settings)
