"""`wattscale plan-capacity`: how many GPUs and watts a load needs, measured on the simulated cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.cli.build.simulate import POLICY_HELP, add_engine, add_load, add_our_planner, add_startup
from deploy.cli.numbers import MOST_GPUS, MOST_WATTS, number, whole

DEFAULT_MOST_GPUS = 512
MOST_POINTS = 10_000


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "plan-capacity",
        help="how many GPUs and watts a load needs",
        description="Runs a load on simulated clusters of many sizes and budgets, with the parts of `wattscale "
        "simulate`, and prints the fewest GPUs and watts that keep the promise, and the Pareto table of GPUs, watts "
        "and good requests. Exit code 1 where nothing within the budget keeps it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_load(parser, "--load")
    _add_promise(parser)
    _add_cluster(parser)
    _add_search(parser)
    parser.set_defaults(run=_run)


def _add_promise(parser: argparse.ArgumentParser) -> None:
    promise = parser.add_argument_group("promise")
    promise.add_argument(
        "--good-percent",
        type=number(0, 100, above=True),
        default=95.0,
        metavar="PERCENT",
        help="share of the requests that must meet both targets",
    )
    promise.add_argument(
        "--budget-watts",
        type=number(0, MOST_WATTS, above=True),
        required=True,
        metavar="W",
        help="the most watts there are for all GPUs",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    cluster = parser.add_argument_group("cluster")
    add_engine(cluster, "the policy does not know it")
    cluster.add_argument("--gpus-per-node", type=whole(1, 1024), default=8, help="the last node may have fewer")
    cluster.add_argument(
        "--max-gpus",
        type=whole(1, MOST_GPUS),
        metavar="N",
        help=f"the largest cluster to consider; default: as many as the budget feeds at their lowest caps, at most "
        f"{DEFAULT_MOST_GPUS}",
    )
    add_startup(cluster)


def _add_search(parser: argparse.ArgumentParser) -> None:
    search = parser.add_argument_group("search and results")
    search.add_argument("--policy", default="ours", help=f"who decides on the cluster: one of the {POLICY_HELP}")
    add_our_planner(search)
    search.add_argument(
        "--points", type=whole(1, MOST_POINTS), default=32, metavar="N", help="the most runs of the load to make"
    )
    search.add_argument("--seed", type=whole(0, 2**53), default=0, help="seed for start-up times")
    search.add_argument("--processes", type=whole(0, 1024), default=0, help="parallel runs; 0: one per processor")
    search.add_argument("--json", action="store_true", help="print answer, frontier and all points as JSON")
    search.add_argument("--svg", type=Path, metavar="FILE", help="write the Pareto plot")


def _run(args: argparse.Namespace) -> int:
    from deploy.cli.build.plan_capacity_run import run_plan_capacity

    return run_plan_capacity(args)
