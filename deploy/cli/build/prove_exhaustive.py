"""`wattscale prove --exhaustive`: search tiny worlds to their end, or retell one story. Exit 1 on a broken promise."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.cli.errors import UsageError
from deploy.cli.numbers import LONGEST_S, number, whole

if TYPE_CHECKING:
    from deploy.fault_simulation.exhaustive.run import SearchTally

GROUPS = ("gate", "night", "all")
EXTRA_MUTATIONS = (
    "answered-forgotten",
    "caps-inherited",
    "climbs-when-proven",
    "copy-believed",
    "decisions-age",
    "earlier-incarnation-taken",
    "ids-off",
    "lease-from-receipt",
    "new-leader-does-not-wait",
    "only-lowers-ignored",
    "parked-not-renewed",
    "raise-for-an-earlier-process",
    "settle-0",
    "silence-frees",
    "telemetry-frees",
    "unseen-at-default",
)
"""Faults that the search shows, and the random proof need not meet."""
PROGRESS_EVERY_S = 2.0
GIB = 1 << 30


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the search, beside those of the random proof."""
    group = parser.add_argument_group("exhaustive search of tiny worlds")
    group.add_argument(
        "--exhaustive",
        nargs="?",
        const="gate",
        metavar="SCOPE,…",
        help="search scopes by name, or 'gate' (the default), 'night' or 'all'",
    )
    group.add_argument("--depth", type=whole(1, 1000), metavar="N", help="stop after every path of this many steps")
    group.add_argument(
        "--seconds", type=number(0, LONGEST_S, above=True), metavar="S", help="stop each scope after S seconds"
    )
    group.add_argument(
        "--memory-gib",
        type=number(0, 10_000, above=True),
        default=4.0,
        metavar="G",
        help="stop a scope there (default: 4)",
    )
    group.add_argument("--story", metavar="STEPS", help="retell one story of a scope, as a broken promise prints it")


def run_exhaustive(args: argparse.Namespace) -> int:
    """Every scope named; stops at the first broken promise."""
    names = _scopes(args.exhaustive)
    if args.story is not None:
        return _retell(names, args)
    found = []
    for name in names:
        tally = _search(name, args)
        found.append(tally)
        if not args.json:
            _show(tally)
        if tally.sentence:
            break
    if args.json:
        print(json.dumps({"holds": not found[-1].sentence, "scopes": [_document(tally) for tally in found]}, indent=2))
    return 1 if found[-1].sentence else 0


def _scopes(text: str) -> list[str]:
    from deploy.fault_simulation.exhaustive.scopes import SCOPES

    if text in GROUPS:
        return [name for name, scope in SCOPES.items() if text == "all" or scope.long == (text == "night")]
    names = text.split(",")
    if unknown := [name for name in names if name not in SCOPES]:
        raise UsageError(f"--exhaustive: no scope is called {unknown[0]!r}; there are {', '.join((*GROUPS, *SCOPES))}")
    return names


def _search(name: str, args: argparse.Namespace) -> SearchTally:
    from deploy.fault_simulation.exhaustive.run import (
        Bounds,
        Checkpoint,
        CheckpointError,
        ExhaustiveSearch,
    )

    folder = None if args.checkpoint is None else Checkpoint(Path(args.checkpoint) / name)
    try:
        return ExhaustiveSearch(
            name,
            mutation=args.mutate,
            jobs=max(1, args.jobs),
            bounds=Bounds(args.depth, args.seconds, int(args.memory_gib * GIB)),
            checkpoint=folder,
            progress=_progress() if sys.stderr.isatty() else lambda tally: None,
        ).run()
    except CheckpointError as error:
        raise UsageError(f"--checkpoint: {error}") from error


def _progress() -> Callable[[SearchTally], None]:
    """A line on the terminal now and then, with the time that is left in this depth."""
    shown_s, depth, began_s = 0.0, -1, 0.0

    def show(tally: SearchTally) -> None:
        nonlocal shown_s, depth, began_s
        now_s = time.monotonic()
        if tally.depth != depth:
            depth, began_s = tally.depth, now_s
        if now_s - shown_s < PROGRESS_EVERY_S:
            return
        shown_s = now_s
        done = tally.blocks - tally.blocks_left
        left_s = (now_s - began_s) / max(1, done) * tally.blocks_left
        rate = tally.transitions / max(tally.seconds, 1e-9)
        print(
            f"{tally.scope}: depth {tally.depth}, {tally.states} worlds, {rate:.0f} steps/s, "
            f"{done} of {tally.blocks} blocks of this depth, {left_s:.0f} s left in it",
            file=sys.stderr,
        )

    return show


def _line(tally: SearchTally) -> str:
    how = "BROKEN" if tally.sentence else "complete" if tally.complete else f"cut at {tally.cut}"
    broken = f" with {tally.mutation}" if tally.mutation else ""
    return (
        f"{tally.scope:16}{broken} {tally.states} worlds, {tally.transitions} steps, depth {tally.depth}, {how}, "
        f"{tally.judged} judged in calm weather, {tally.seconds:.1f} s"
    )


def _show(tally: SearchTally) -> None:
    from deploy.fault_simulation.exhaustive.scopes import SCOPES
    from deploy.fault_simulation.exhaustive.story import line_of, replay_story

    print(_line(tally), flush=True)
    if not tally.sentence:
        return
    scope = SCOPES[tally.scope]
    for line in replay_story(scope, tally.mutation, tally.story).lines:
        print(f"  {line}")
    print(f"BROKEN: {tally.sentence}")
    print(f"reproduce: {line_of(scope, tally.mutation, tally.story)}")


def _document(tally: SearchTally) -> dict[str, Any]:
    from deploy.fault_simulation.exhaustive.scopes import SCOPES
    from deploy.fault_simulation.exhaustive.story import line_of

    document = asdict(tally)
    for key in ("blocks", "blocks_left", "last", "kept_transitions", "kept_judged", "story"):
        del document[key]
    document["seconds"] = round(tally.seconds, 2)
    if tally.sentence:
        document["reproduce"] = line_of(SCOPES[tally.scope], tally.mutation, tally.story)
    return document


def _retell(names: Sequence[str], args: argparse.Namespace) -> int:
    from deploy.fault_simulation.exhaustive.scopes import SCOPES
    from deploy.fault_simulation.exhaustive.story import UnknownStepError, read, replay_story

    if len(names) != 1:
        raise UsageError("--story belongs to one scope: --exhaustive SCOPE --story …")
    try:
        found = replay_story(SCOPES[names[0]], args.mutate, read(args.story))
    except UnknownStepError as error:
        raise UsageError(f"--story: {error}") from error
    if args.json:
        print(json.dumps({"holds": not found.sentence, "sentence": found.sentence, "lines": found.lines}, indent=2))
    else:
        print("\n".join(found.lines))
        print(f"BROKEN: {found.sentence}" if found.sentence else "holds")
    return 1 if found.sentence else 0
