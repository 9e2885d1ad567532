"""`wattscale tour`: a walk through a running site for a newcomer, on one machine."""

from __future__ import annotations

import argparse

from deploy.cli.numbers import number

STEPS = ("baseline", "spike", "long-context", "low-load", "budget-cut", "planner-killed", "agent-killed")
DESCRIPTION = (
    "Starts a NATS server, planners and power agents as processes, and a simulated GPU cluster under load, and walks"
    " through baseline, spike, long context, low load, a budget cut, a killed planner and a killed agent: what to look"
    " at, the command that shows or does it, and what happened, in figures from the bus. Ten minutes with reading."
    " Exit code 130: interrupted; nothing is left behind."
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("tour", help="walk through a running site, step by step", description=DESCRIPTION)
    parser.add_argument("--yes", "-y", action="store_true", help="do not wait for Enter at each step")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=STEPS[1:],
        metavar="STEP",
        help=f"only this step after the baseline; repeat for several: {', '.join(STEPS[1:])}",
    )
    parser.add_argument(
        "--speed", type=number(1, 60), default=10.0, metavar="X", help="load seconds per real second (default: 10)"
    )
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from deploy.tour.tour_run import TourOptions, run_tour

    return run_tour(TourOptions(yes=args.yes, speed=args.speed, only=tuple(args.only)))
