"""`wattscale prove`: run the proof of the power budget by simulation. Exit 1 on a broken promise."""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from typing import TYPE_CHECKING, Any

from deploy.cli.build.prove_exhaustive import EXTRA_MUTATIONS, add_options, run_exhaustive
from deploy.cli.errors import UsageError
from deploy.cli.numbers import whole

if TYPE_CHECKING:
    from deploy.fault_simulation.campaign import Tally
    from deploy.fault_simulation.proof_run import Outcome

SAVE_EVERY_S = 30.0
MOST_EVENTS = 10**9
RANDOM_MUTATIONS = ("unreserved-scale-up", "hold-without-end")
"""Faults that no scope of the search shows."""
MUTATIONS = (
    "raise-before-lower",
    "ignore-unacked-grants",
    "default-on-expiry",
    "fencing-off",
    *RANDOM_MUTATIONS,
)


def register(subparsers: Any) -> None:
    """Add the command."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "prove",
        help="prove by simulation that GPU limits never exceed the power budget",
        description="Drives the real ledger and the real agent core through lost, doubled, late and reordered "
        "messages, crashes, stalls, fail-overs, driver resets, foreign writers and budget cuts in virtual time, and "
        "adds up the simulated hardware's limits after every event. Exit 1 when they exceed the budget.",
    )
    parser.add_argument("--events", type=whole(1, 10**9), default=100_000, help="events per seed (default: 100000)")
    parser.add_argument(
        "--seed", help="the first seed; with .N one episode of it (default: a fresh one, which is printed)"
    )
    parser.add_argument(
        "--seeds", type=whole(1, 10_000), default=1, help="number of seeds, counting up from the first (default: 1)"
    )
    parser.add_argument(
        "--mutate",
        choices=(*MUTATIONS, *EXTRA_MUTATIONS),
        help="break the product on purpose: the proof must then fail",
    )
    parser.add_argument("--jobs", type=whole(0, 1024), default=0, help="processes (default: one per core)")
    parser.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        help="save the progress there, and go on from it when the same line is run again",
    )
    parser.add_argument("--without", default="", metavar="KIND,…", help="kinds of faults to leave out")
    parser.add_argument("--only", default=None, metavar="N,…", help="numbers of the faults to keep (or: none)")
    parser.add_argument("--no-shrink", action="store_true", help="show a failing run without shrinking it")
    parser.add_argument(
        "--trace", type=whole(0, 10**6), default=40, metavar="N", help="events to print before a failure (default: 40)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    add_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run all seeds, stop at the first broken promise, report; or search tiny worlds instead."""
    if args.exhaustive is not None:
        if args.mutate in RANDOM_MUTATIONS:
            raise UsageError(f"--mutate {args.mutate} is for the random proof: leave out --exhaustive")
        return run_exhaustive(args)
    if args.mutate in EXTRA_MUTATIONS:
        raise UsageError(f"--mutate {args.mutate} is for the search: add --exhaustive")
    return _run_random(args)


def _run_random(args: argparse.Namespace) -> int:
    from deploy.fault_simulation.campaign import CampaignError, CampaignProgress, outcomes, runs_of
    from deploy.fault_simulation.scenario import ALL_FAULTS

    without = frozenset(filter(None, args.without.split(",")))
    if args.checkpoint is not None and args.seed is None:
        raise UsageError("--checkpoint needs --seed: a fresh seed is another campaign each time")
    if unknown := sorted(without - set(ALL_FAULTS)):
        raise UsageError(f"--without: unknown kind of fault {unknown[0]!r}; known: {', '.join(ALL_FAULTS)}")
    if args.events * args.seeds > MOST_EVENTS:
        raise UsageError(f"--events times --seeds are more than {MOST_EVENTS:g} events: split the run")
    only = _numbers(args.only)
    first = args.seed if args.seed is not None else str(random.SystemRandom().randrange(1, 10**9))
    seeds = _seeds(first, args.seeds)
    planned = [each for seed in seeds for each in runs_of(seed, args.events, args.mutate, without, only)]
    jobs = min(len(planned), args.jobs or len(os.sched_getaffinity(0)))
    try:
        record = CampaignProgress.of(args.checkpoint, [args.events, args.mutate, args.without, args.only, *seeds])
    except CampaignError as error:
        raise UsageError(f"--checkpoint: {error}") from error
    started, tally = time.monotonic(), record.tally
    for outcome in outcomes(planned[tally.worlds :], jobs):
        tally.add(outcome)
        if outcome.failure is not None:
            break
        record.save(every_s=SAVE_EVERY_S)
    else:
        record.save()
    wall_s = time.monotonic() - started
    small = _small(tally, shrink=not args.no_shrink)
    if args.json:
        print(json.dumps(_document(args, seeds, tally, small, wall_s), indent=2))
    else:
        _show(args, seeds, tally, small, wall_s)
    return 1 if tally.failures else 0


def _numbers(text: str | None) -> frozenset[int] | None:
    if text is None:
        return None
    try:
        return frozenset() if text == "none" else frozenset(int(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"--only: expected numbers of faults, such as 3,17,21, not {text!r}") from None


def _seeds(first: str, count: int) -> list[str]:
    whole, dot, episode = first.partition(".")
    if not whole.isdecimal() or (dot and not episode.isdecimal()):
        raise UsageError(f"--seed: expected a number, or number.episode, not {first!r}")
    if dot and count > 1:
        raise UsageError("--seed with an episode is a single run: omit --seeds")
    return [first] if dot else [str(int(whole) + n) for n in range(count)]


def _small(tally: Tally, *, shrink: bool) -> Outcome | None:
    from deploy.fault_simulation.shrink import shrunk

    if not tally.failures:
        return None
    return shrunk(tally.failures[0]) if shrink else tally.failures[0]


def _document(
    args: argparse.Namespace, seeds: list[str], tally: Tally, small: Outcome | None, wall_s: float
) -> dict[str, Any]:
    from deploy.fault_simulation.campaign import quantile, reproduction

    document: dict[str, Any] = {
        "holds": small is None,
        "mutation": args.mutate,
        "seeds": seeds,
        "events": tally.events,
        "worlds": tally.worlds,
        "virtual_s": round(tally.virtual_s, 1),
        "wall_s": round(wall_s, 2),
        "events_per_s": round(tally.events / max(wall_s, 1e-9)),
        "counts": dict(sorted(tally.counts.items())),
        "above_budget_s": {
            "times": len(tally.over_s),
            "p50": round(quantile(tally.over_s, 0.5), 2),
            "p99": round(quantile(tally.over_s, 0.99), 2),
            "longest": round(max(tally.over_s, default=0.0), 2),
        },
    }
    if small is not None and small.failure is not None:
        first = tally.failures[0]
        document["failure"] = {
            "rule": small.failure.rule,
            "sentence": small.failure.sentence,
            "time_s": round(small.failure.time_s, 4),
            "found_after_events": tally.events,
            "reproduce": reproduction(small.run),
            "reproduce_unshrunk": reproduction(first.run),
            "faults": [f"{number} {kind}" for number, kind in small.struck],
        }
    return document


def _show(args: argparse.Namespace, seeds: list[str], tally: Tally, small: Outcome | None, wall_s: float) -> None:
    from deploy.fault_simulation.campaign import quantile, reproduction

    broken = f" with {args.mutate}" if args.mutate else ""
    span = seeds[0] if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    print(
        f"{tally.events} events{broken}, seed {span}, {tally.worlds} worlds, "
        f"{tally.virtual_s / 3600:.1f} h of virtual time in {wall_s:.1f} s "
        f"({tally.events / max(wall_s, 1e-9):.0f} events/s)"
    )
    width = max(map(len, tally.counts), default=0)
    for kind, count in sorted(tally.counts.items()):
        print(f"  {kind:{width}}  {count}")
    over = tally.over_s
    print(
        f"above the budget after cuts: {len(over)} times, p50 {quantile(over, 0.5):.2f} s, "
        f"p99 {quantile(over, 0.99):.2f} s, longest {max(over, default=0.0):.1f} s "
        "(dead and cut-off nodes included; never above what was allowed before)"
    )
    if small is None or small.failure is None:
        print("holds: after no event were the hardware's limits above what is allowed")
        return
    print(f"\nBROKEN ({small.failure.rule}) at {small.failure.time_s:.4f} s: {small.failure.sentence}")
    print("faults: " + (", ".join(f"{number} {kind}" for number, kind in small.struck[-30:]) or "none"))
    for line in (*small.trace[-args.trace :], "", *small.picture):
        print(f"  {line[:300]}")
    print(f"\nreproduce: {reproduction(small.run)}")
