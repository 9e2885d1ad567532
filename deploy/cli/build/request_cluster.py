"""`wattscale request watch`, and what its Jobs run, `upload` and `report`: requests in a Kubernetes cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.cli.errors import UsageError

BUS = "nats://127.0.0.1:4222"
NEEDED = {
    "results": "the folder that `wattscale profile` writes",
    "namespace": "that of the ConfigMap",
    "config_map": "the one that `wattscale request watch` made for the profile",
    "pod_uid": "metadata.uid of the pod in which the profiler runs",
}
"""What each option of a Job is."""
ACCOUNT = "wattscale-profiler"


def add_watch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the controller."""
    text = "carry the InferencePowerRequests of a Kubernetes namespace out, as a controller"
    watch = commands.add_parser("watch", help=text, description=f"{text[0].upper()}{text[1:]}.")
    watch.add_argument("--namespace", metavar="NAME", help="the namespace to watch (default: that of the pod)")
    watch.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: the pod's account, else KUBECONFIG")
    watch.add_argument("--image", metavar="IMAGE", help="of this program, for the Jobs that profile")
    watch.add_argument(
        "--offline-image", metavar="IMAGE", help="of this program with the extra profile-offline (default: --image)"
    )
    watch.add_argument(
        "--service-account",
        default=ACCOUNT,
        metavar="NAME",
        help=f"of the Jobs' pods; it must be able to patch ConfigMaps (default: {ACCOUNT})",
    )
    watch.add_argument(
        "--quick", action="store_true", help="fewer points, shorter answers, wider intervals, in the Jobs that measure"
    )
    watch.add_argument(
        "--rank-candidates",
        action="store_true",
        help="also rank the candidates of Dynamo's searches (v1beta2) by goodput per watt, into ConfigMaps of our own",
    )
    watch.add_argument("--bus", default=BUS, metavar="URL", help=f"for the planner's settings ({BUS})")
    watch.add_argument("--prometheus", default="", metavar="URL", help="for the planner's settings (default: none)")
    watch.add_argument("--host", metavar="HOST", help="address of /livez, /readyz and /metrics")
    watch.add_argument("--port", metavar="PORT", help="port of these pages (default 9102; none: no server)")
    watch.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    watch.set_defaults(run=_watch)


def add_upload(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add what a profiling Job does last."""
    text = "write a profile into the ConfigMap that `wattscale request watch` made for it"
    _of_a_job(commands, "upload", text).set_defaults(run=_upload)


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add what runs beside the profiler in a Job."""
    text = "say in that ConfigMap which part of profiling is under way, until a signal"
    report = _of_a_job(commands, "report", text)
    report.add_argument("--pod-uid", metavar="UID", help="metadata.uid of the pod in which the profiler runs")
    report.set_defaults(run=_report)


def _of_a_job(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--results", type=Path, metavar="DIR", help="what `wattscale profile` writes")
    parser.add_argument("--namespace", metavar="NAME", help="of the ConfigMap")
    parser.add_argument("--config-map", metavar="NAME", help="its name")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="default: the pod's account, else KUBECONFIG")
    return parser


def _watch(args: argparse.Namespace) -> int:
    if not args.image:
        raise UsageError("--image IMAGE is missing: the image of this program, for the Jobs that profile")
    _check_library()
    from pydantic import ValidationError

    from agent.connectors.connector_file import ConnectorHttpSection
    from deploy.requests.cluster.request_actions import ClusterPlace
    from deploy.requests.cluster.watch_service import WatchOptions, run_watch

    try:
        given = {"host": args.host, "port": args.port}
        http = ConnectorHttpSection.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    place = ClusterPlace(
        image=args.image,
        offline_image=args.offline_image or args.image,
        account=args.service_account,
        quick=args.quick,
        bus=args.bus,
        prometheus=args.prometheus,
    )
    return run_watch(WatchOptions(args.namespace, args.kubeconfig, place, http, args.log_level, args.rank_candidates))


def _upload(args: argparse.Namespace) -> int:
    _check_job(args, "results", "namespace", "config_map")
    from deploy.requests.cluster.result_upload import run_upload

    return run_upload(args.results, args.namespace, args.config_map, args.kubeconfig)


def _report(args: argparse.Namespace) -> int:
    _check_job(args, "results", "namespace", "config_map", "pod_uid")
    from deploy.requests.cluster.phase_report import run_report

    return run_report(args.results, args.namespace, args.config_map, args.pod_uid, args.kubeconfig)


def _check_job(args: argparse.Namespace, *needed: str) -> None:
    for name in needed:
        if getattr(args, name) is None:
            raise UsageError(f"--{name.replace('_', '-')} is missing: {NEEDED[name]}; a profiling Job gives it itself")
    _check_library()


def _check_library() -> None:
    try:
        import kubernetes_asyncio  # noqa: F401
    except ImportError as error:
        raise UsageError("kubernetes-asyncio is not installed: pip install 'wattscale[kubernetes]'") from error
