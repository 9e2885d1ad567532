"""`wattscale up`: the whole loop on one machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from deploy.cli.bus_address import servers_of
from deploy.cli.numbers import LONGEST_S, MOST_MS, MOST_WATTS, number, whole

REAL_DEFAULTS = {"nodes": 2, "gpus_per_node": 2, "startup_s": 5.0}
"""With real workers, each of which is a process of this machine."""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "up",
        help="run server, simulated cluster, planner and agents on this machine",
        description="Runs the whole loop on one machine: an embedded NATS server with JetStream, a simulated GPU "
        "cluster under a real or generated load, the planner, one power agent per node and a scaling connector.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    load = parser.add_argument_group("load")
    load.add_argument("--trace", type=Path, help="Mooncake JSONL or CSV, plain or gzip; default: a generated load")
    load.add_argument("--profile", type=Path, help="folder with a profile (npz or JSON); default: the built-in one")
    load.add_argument(
        "--ttft-ms", type=number(0, MOST_MS, above=True), default=1000.0, help="target for the time to first token"
    )
    load.add_argument(
        "--itl-ms", type=number(0, MOST_MS, above=True), default=40.0, help="target for the mean inter-token latency"
    )
    load.add_argument("--speed", type=number(1e-3, 1e6), default=1.0, help="load seconds per real second")
    load.add_argument(
        "--duration",
        type=number(0, LONGEST_S, above=True),
        dest="duration_s",
        metavar="S",
        help="stop after S real seconds",
    )
    load.add_argument(
        "--seed", type=whole(0, 2**53), default=0, help="seed of the generated load and of the simulated cluster"
    )
    _cluster(parser)
    bus = parser.add_argument_group("bus")
    bus.add_argument("--nats-url", help="use this server instead of an embedded one")
    bus.add_argument("--nats-port", type=whole(0, 65_535), default=0, help="port of the embedded server; 0: a free one")
    bus.add_argument(
        "--data-dir", type=_folder, help="keep the embedded server's data here; default: a temporary folder"
    )
    parser.add_argument(
        "--real-workers",
        action="store_true",
        help="start engines as processes and send them the load over HTTP, in place of the simulated cluster; both "
        "phases in one pool, in real time, by default on 2 nodes of 2 GPUs with --startup-s 5",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON on standard output")
    parser.set_defaults(run=_run)


class _WorkersBudget(argparse.Action):
    """The power guide's budget: it covers workers only."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.budget_watts, namespace.covers = values, "workers"


def _cluster(parser: argparse.ArgumentParser) -> None:
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument("--nodes", type=whole(1, 10_000), default=argparse.SUPPRESS, help="default: 4")
    cluster.add_argument("--gpus-per-node", type=whole(1, 1024), default=argparse.SUPPRESS, help="default: 8")
    cluster.add_argument("--gpu", choices=("h100", "h200", "b200"), default="h200")
    cluster.add_argument(
        "--budget-watts",
        type=number(0, MOST_WATTS),
        help="watts for the GPUs; default: 70 %% of their maximum",
    )
    cluster.add_argument(
        "--covers",
        choices=("all_gpus", "workers"),
        default="all_gpus",
        help="workers: the budget bounds only GPUs that workers hold, and those reserved for them",
    )
    cluster.add_argument(
        "--total-gpu-power-limit",
        type=number(0, MOST_WATTS),
        action=_WorkersBudget,
        default=argparse.SUPPRESS,
        help="the power guide's budget: --budget-watts with --covers workers",
    )
    for phase in ("prefill", "decode"):
        cluster.add_argument(
            f"--{phase}-cap-watts",
            f"--{phase}-engine-gpu-power-limit",
            type=number(0, MOST_WATTS, above=True),
            help=f"the highest cap of a {phase} GPU; default: the card's own limit",
        )
    cluster.add_argument(
        "--caps", choices=("joint", "fixed"), default="joint", help="fixed: each GPU gets its highest cap and no other"
    )
    cluster.add_argument(
        "--shortage",
        choices=("joint", "proportional"),
        default="joint",
        help="how counts are cut where the watts do not suffice; proportional: the power guide's rule",
    )
    cluster.add_argument(
        "--startup-s",
        type=number(0, 1e6),
        default=argparse.SUPPRESS,
        help="start-up time of a worker, in load seconds; default: 30",
    )
    cluster.add_argument("--planners", type=whole(1, 64), default=1, help="planners that compete for the lease")


def _folder(word: str) -> Path:
    if not word:
        raise argparse.ArgumentTypeError("it must name a folder")
    return Path(word)


def _run(args: argparse.Namespace) -> int:
    from deploy.demo.demo_run import run_up
    from deploy.demo.options import UpOptions

    if args.nats_url is not None:
        servers_of(args.nats_url)
    if args.real_workers:
        args = argparse.Namespace(**(REAL_DEFAULTS | vars(args)))
    fields = {name: value for name, value in vars(args).items() if name in UpOptions.__dataclass_fields__}
    return run_up(UpOptions(**fields))
