"""Runs 0.9.1's core and ``wattscale planner decide`` over the same sequences, in one process with the same libraries.

    python -m tests.contract.dynamo.compare REPORT FIRST_SEED COUNT PROFILE...

REPORT becomes JSON: for each sequence its seed, settings, and both planners' counts after each interval.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from deploy.cli.main import main
from tests.contract.dynamo.published_core import Counts, PublishedPlanner, flags
from tests.contract.dynamo.sequences import Interval, Sequence, sequence


def theirs(known: Sequence, profile: str) -> list[Counts | None]:
    """0.9.1's counts after each interval; None where it fails, as its process would."""
    planner = PublishedPlanner(known.config, profile)
    decided: list[Counts | None] = []
    for interval in known.intervals:
        try:
            decided.append(planner.decide(interval))
        except Exception as error:  # noqa: BLE001 - whatever it raises
            print(f"0.9.1 failed on seed {known.seed}: {error!r}", file=sys.stderr)
            decided.append(None)
    return decided


def ours(known: Sequence, profile: str) -> list[Counts]:
    """``wattscale planner decide`` with the same settings, by the same flags."""
    arguments = [
        "planner",
        "decide",
        "--profile",
        profile,
        "--set",
        "deployments.*.sizing=classic",
        *flags(known.config),
    ]
    lines = [json.dumps(_as_decide_reads(interval)) for interval in known.intervals]
    output, kept = io.StringIO(), sys.stdin
    sys.stdin = io.StringIO("\n".join(lines))
    try:
        with contextlib.redirect_stdout(output):
            code = main(arguments)
    finally:
        sys.stdin = kept
    if code:
        raise RuntimeError(f"seed {known.seed}: planner decide ended with {code}")
    decided = [json.loads(line) for line in output.getvalue().splitlines()]
    return [(each["num_prefill"], each["num_decode"]) for each in decided]


def _as_decide_reads(interval: Interval) -> dict[str, Any]:
    """Milliseconds by the multiplication that 0.9.1 does itself."""
    return {
        **{name: interval[name] for name in ("num_req", "isl", "osl", "request_duration_s")},
        "ttft_ms": interval["ttft_s"] * 1000,
        "itl_ms": interval["itl_s"] * 1000,
    }


def run(report: Path, first: int, count: int, profiles: list[str]) -> None:
    """Write the report."""
    found = []
    for seed in range(first, first + count):
        known = sequence(seed, len(profiles))
        profile = profiles[known.profile]
        found.append(
            {
                "seed": seed,
                "profile": Path(profile).name,
                "config": known.config,
                "theirs": theirs(known, profile),
                "ours": ours(known, profile),
            }
        )
    report.write_text(json.dumps(found))


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
