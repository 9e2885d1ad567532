"""`wattscale simulate`: policies on a simulated cluster, measured on the same load."""

from __future__ import annotations

import argparse
from pathlib import Path

from deploy.cli.numbers import LONGEST_S, MOST_MS, number, whole

LONGEST_LOAD_S = 31 * 86_400.0
POLICY_HELP = (
    "policies, separated by commas: ours, classic, load, sla+load (each also with -nopower), static:6p2d, hpa, keda, "
    "knative, clairvoyant[:SHARE][+joules] (knows the trace; all others' regret to it is shown); a peer may end in "
    "+tdp, +uniform, +role, +reactive, +steer, +even:0.8 or +roles:500/350, a static one also in +mover:50: how it "
    "keeps within a budget"
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "simulate",
        help="measure policies on a simulated cluster",
        description="Runs one or several policies on a simulated serving cluster in virtual time, all on the same "
        "requests, and compares their scores. Ours runs the same code as in production.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_load(parser, "--trace")
    _add_cluster(parser)
    _add_policies_and_results(parser)
    parser.set_defaults(run=_run)


def add_load(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the options of a load and its targets; ``name`` is the option that names the trace."""
    load = parser.add_argument_group("load")
    load.add_argument(
        name,
        type=Path,
        dest="trace",
        metavar="TRACE",
        help="Mooncake JSONL or CSV, plain or gzip; default: a generated load",
    )
    load.add_argument(
        "--rate", type=number(0, 1e6, above=True), default=1.0, help="replay the trace at this many times its speed"
    )
    load.add_argument(
        "--copies",
        type=whole(1, 1000),
        default=1,
        help="overlay the trace with itself this many times, slightly shifted",
    )
    load.add_argument(
        "--from",
        type=number(0, LONGEST_LOAD_S),
        dest="from_s",
        metavar="S",
        default=0.0,
        help="leave out the first S seconds of the trace (after --rate)",
    )
    load.add_argument(
        "--duration",
        type=number(0, LONGEST_LOAD_S, above=True),
        dest="duration_s",
        metavar="S",
        help="stop after S seconds of load",
    )
    load.add_argument(
        "--ttft-ms", type=number(0, MOST_MS, above=True), default=1000.0, help="target for the time to first token"
    )
    load.add_argument(
        "--itl-ms", type=number(0, MOST_MS, above=True), default=40.0, help="target for the mean inter-token latency"
    )


def add_engine(cluster: argparse._ArgumentGroup, unknown: str) -> None:
    """Add the options of engines and GPUs; ``unknown``: who does not know the error of the profile."""
    cluster.add_argument("--profile", type=Path, help="folder with a profile (npz or JSON); default: the built-in one")
    cluster.add_argument(
        "--profile-error",
        type=number(0, 100, above=True),
        default=1.0,
        metavar="X",
        help=f"true speed of the engines relative to the profile (0.7: slower); {unknown}",
    )
    cluster.add_argument("--gpu", choices=("h100", "h200", "b200"), default="h200")


def add_startup(cluster: argparse._ArgumentGroup) -> None:
    """Add the option of a worker's start-up time."""
    cluster.add_argument(
        "--startup-s", type=number(0, LONGEST_LOAD_S), default=60.0, help="mean start-up time of a worker"
    )


def add_our_planner(group: argparse._ArgumentGroup) -> None:
    """Add the settings of our planner."""
    group.add_argument("--interval-s", type=number(0.5, 86_400), default=30.0, help="our planner's interval")
    group.add_argument(
        "--ttft-quantile", type=number(0.001, 0.999), default=0.95, help="our planner's quality knob, 0 to 1"
    )
    group.add_argument(
        "--slo-share",
        type=number(0.001, 0.999),
        help="the share of good requests that our planner promises, 0 to 1; it then moves --ttft-quantile by itself",
    )


def _add_cluster(parser: argparse.ArgumentParser) -> None:
    cluster = parser.add_argument_group("cluster")
    add_engine(cluster, "the policies do not know it")
    cluster.add_argument("--nodes", type=whole(1, 10_000), default=4)
    cluster.add_argument("--gpus-per-node", type=whole(1, 1024), default=8)
    add_startup(cluster)
    cluster.add_argument("--start", default="1p1d", metavar="NpMd", help="workers that are ready at the start")
    cluster.add_argument(
        "--mtbf-s", type=number(1, LONGEST_S), help="mean time between failures of a worker; default: no failures"
    )
    cluster.add_argument(
        "--budget-watts", metavar="W|S:W,…", help="watts for all GPUs: one number, or steps such as 0:16000,3600:11000"
    )


def _add_policies_and_results(parser: argparse.ArgumentParser) -> None:
    policy = parser.add_argument_group("policies")
    policy.add_argument("--policy", default="ours,hpa,keda,knative", help=POLICY_HELP)
    add_our_planner(policy)
    policy.add_argument(
        "--what-if-budget",
        default="",
        metavar="X,…",
        help="run ours again under these fractions of the budget (without a budget: of its own peak draw)",
    )
    output = parser.add_argument_group("runs and results")
    output.add_argument("--seeds", default="0", help="seeds for start-up times and failures, separated by commas")
    output.add_argument("--processes", type=whole(0, 1024), default=0, help="parallel runs; 0: one per processor")
    output.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    output.add_argument("--html", type=Path, metavar="FILE", help="write a report with plots")


def _run(args: argparse.Namespace) -> int:
    from deploy.cli.build.simulate_run import run_simulate

    return run_simulate(args)
