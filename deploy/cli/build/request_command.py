"""`wattscale request`: from a model and a promise to what is deployed."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.cli.build.profile_command import MOST_GPUS_PER_ENGINE, MOST_TOKENS, check_endpoint, whole_numbers
from deploy.cli.build.request_cluster import BUS, add_report, add_upload, add_watch
from deploy.cli.errors import UsageError
from deploy.cli.numbers import whole

if TYPE_CHECKING:
    from deploy.requests.local_profiling import ApplyOptions

FIRST_PORT = 9400


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "request",
        help="profile an engine for a request and deploy what it recommends",
        description="Carries a DynamoGraphDeploymentRequest or an InferencePowerRequest out: profiles, generates the "
        "deployment and the planner's settings, and with autoApply starts it.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _apply(commands)
    status = _command(commands, "status", "print the state, conditions and events of a request", _status)
    status.add_argument("--json", action="store_true", help="the manifest with its status, as in a cluster")
    delete = _command(commands, "delete", "end a request and remove what it wrote; workers that serve stay", _delete)
    delete.add_argument("--drain-workers", action="store_true", help="let its workers finish and end as well")
    add_watch(commands)
    add_upload(commands)
    add_report(commands)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("-f", "--file", type=Path, metavar="FILE", help="the request, as YAML")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="what it keeps and writes (default: request-NAME, beside you)"
    )
    parser.set_defaults(run=run)
    return parser


def _apply(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    apply = _command(commands, "apply", "carry a request out on this machine, as far as it goes now", _run_apply)
    apply.epilog = "Killed or interrupted, the same command goes on where it was."
    engine = apply.add_argument_group("engine to profile, as for `wattscale profile`")
    engine.add_argument("--endpoint", metavar="URL", help="one that runs, without /v1")
    engine.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML with model, args, env and command to start it"
    )
    sizes, indexes = whole_numbers("TP sizes", 1, MOST_GPUS_PER_ENGINE), whole_numbers("GPUs", 0, MOST_GPUS_PER_ENGINE)
    engine.add_argument("--tp", type=sizes, metavar="N,N", help="TP sizes (default: within the request's bounds)")
    engine.add_argument("--gpus", type=indexes, metavar="I,I", help="GPUs of this node, by index (default: all)")
    engine.add_argument("--quick", action="store_true", help="fewer points, shorter answers, wider intervals")
    engine.add_argument("--max-kv-tokens", type=whole(1, MOST_TOKENS), metavar="N", help="default: as stated")
    engine.add_argument("--max-in-flight", type=whole(1, 100_000), metavar="N", help="most requests at once")
    workers = apply.add_argument_group("workers that autoApply starts")
    workers.add_argument("--bus", default=BUS, metavar="URL", help=f"for the settings of connector and planner ({BUS})")
    workers.add_argument(
        "--first-port",
        type=whole(1024, 65_335),
        default=FIRST_PORT,
        metavar="N",
        help=f"of 200 (default: {FIRST_PORT})",
    )


def _folder(args: argparse.Namespace, content: Any) -> Any:
    from deploy.requests.request_folder import RequestFolder

    if args.folder is not None:
        return RequestFolder(args.folder)
    metadata = content.get("metadata") if isinstance(content, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][-a-z0-9]*", name):
        raise UsageError("metadata.name: missing, or not a name; or give --folder")
    return RequestFolder(Path(f"request-{name}"))


def _run_apply(args: argparse.Namespace) -> int:
    from deploy.profiling.engine_config import read_engine_config
    from deploy.requests.local_profiling import ApplyOptions
    from deploy.requests.local_request import apply_request, read_manifest

    if args.file is None:
        raise UsageError("-f FILE is missing: the request to carry out")
    if args.endpoint is not None and args.config is not None:
        raise UsageError("give --endpoint for an engine that runs, or --config to start engines")
    # Before the request is begun: a failure of its profiling is its end.
    if args.endpoint is not None:
        check_endpoint(args.endpoint, args.tp)
    if args.config is not None:
        read_engine_config(args.config)
    content = read_manifest(args.file)
    options = ApplyOptions(
        endpoint=args.endpoint,
        config=args.config,
        tps=args.tp and ",".join(map(str, args.tp)),
        gpus=args.gpus and ",".join(map(str, args.gpus)),
        quick=args.quick,
        max_kv_tokens=args.max_kv_tokens,
        max_in_flight=args.max_in_flight,
        bus=args.bus,
        first_port=args.first_port,
    )
    return apply_request(content, _existing_or_valid(args, content, options), options)


def _existing_or_valid(args: argparse.Namespace, content: Any, options: ApplyOptions) -> Any:
    """The folder. A request that cannot be read, or is given options that it would ignore, makes none."""
    from deploy.requests.local_profiling import refuse_unused
    from planner.profiler.requests.request_manifest import RequestError, parse_request

    folder = args.folder
    try:
        refuse_unused(parse_request(content), options)
    except RequestError as error:
        if folder is None or not folder.exists():
            raise UsageError(*error.problems) from error
    return _folder(args, content)


def _read(args: argparse.Namespace) -> Any:
    from deploy.requests.local_request import read_manifest

    if args.file is None and args.folder is None:
        raise UsageError("-f FILE or --folder DIR is missing: which request")
    folder = _folder(args, None if args.file is None else read_manifest(args.file))
    if not folder.path.is_dir():
        raise UsageError(f"--folder {folder.path}: there is no request; apply one")
    return folder


def _status(args: argparse.Namespace) -> int:
    from deploy.requests.local_request import show_status

    return show_status(_read(args), as_json=args.json)


def _delete(args: argparse.Namespace) -> int:
    from deploy.requests.local_request import delete_request

    return delete_request(_read(args), drain_workers=args.drain_workers)
