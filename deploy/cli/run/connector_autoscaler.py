"""`wattscale connector autoscaler`: KEDA and HPA take the wanted counts from here."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from deploy.cli.numbers import number


def add_autoscaler(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add the sub-command without the options of the bus and the process; returns its parser."""
    parser = commands.add_parser(
        "autoscaler",
        help="serve wanted counts to KEDA and HPA",
        description="Serves the newest decision's count of each pool: for KEDA as JSON (metrics-api trigger) and over "
        "gRPC (external-push trigger), and as external metrics for HPA. Where a count is not known, the answer is an "
        "error and never 0.",
    )
    # A ``__`` in a name separates a section of the settings file.
    parser.add_argument("--settings", type=Path, metavar="FILE", help="YAML settings file")
    parser.add_argument("--deployment", metavar="NAME", help="the deployment whose counts are served")
    parser.add_argument("--namespace", metavar="NAME", help="the Kubernetes namespace of its autoscalers")
    parser.add_argument(
        "--max-age",
        type=number(1, 600),
        dest="max_age_s",
        metavar="SECONDS",
        help="how long ago the bus may last have confirmed a decision (default: 10); then: errors",
    )
    parser.add_argument(
        "--metrics-api-port",
        dest="metrics_api__port",
        metavar="PORT",
        help="port of the JSON for KEDA (default: 9104; none: no server)",
    )
    parser.add_argument(
        "--external-scaler-port",
        dest="external_scaler__port",
        metavar="PORT",
        help="port of KEDA's external scaler over gRPC (default: none)",
    )
    for option, name, text in (
        ("--external-scaler-cert", "tls_cert_file", "its certificate (default: no TLS)"),
        ("--external-scaler-key", "tls_key_file", "key of that certificate"),
        ("--external-scaler-client-ca", "tls_client_ca_file", "authority of the clients that may ask (default: any)"),
    ):
        parser.add_argument(option, type=Path, dest=f"external_scaler__{name}", metavar="FILE", help=text)
    parser.add_argument(
        "--external-metrics-port",
        dest="external_metrics__port",
        metavar="PORT",
        help="port of the external metrics API for HPA (default: none)",
    )
    for option, name, text in (
        ("--external-metrics-cert", "tls_cert_file", "its certificate, for <service>.<namespace>.svc"),
        ("--external-metrics-key", "tls_key_file", "key of that certificate"),
    ):
        parser.add_argument(option, type=Path, dest=f"external_metrics__{name}", metavar="FILE", help=text)
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: the pod's account, else KUBECONFIG")
    parser.add_argument("--name", metavar="NAME", help="what its claim calls it (default: autoscaler on HOST)")
    parser.set_defaults(run=run)
    return parser
