"""Good requests when watts are short: ours against fixed caps, steering by draw and a mover of watts, in our plant.

    python -m tests.benchmarks.power.watts_short [--gpus 8] [--shares 0.5,0.7] [--loads 1.0] [--seed 2]
        [--peers uniform,roles] [--json FILE]

One node of 8 GPUs or eight of them, H100, the built-in profile, start-up 60 s. The load flips every 600 s between a
prompt-heavy and an answer-heavy mix; a load of 1.0 is what all GPUs serve at even caps within the budget with the best
split of each mix, prompts at 70 % of their workers' time. ``steps`` is a budget that goes 80, 50, 70, 60 % of the
nameplate, ten minutes each, out of step with the flips.

``--peers ''`` runs ours alone: no peer depends on the planner.

Every peer gets the split of GPUs (of three eighths to five eighths for prompts) and, where it has them, the caps or the
step that do best on this very load; ours starts at half and half with its default settings. Where a rule has documented
settings, both are shown.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deploy.demo.demo_profile import profile_of_both_phases
from planner.adapters.traces import Trace
from planner.domain.profile import Profile
from planner.sim.cluster.engine_timing import engine_law
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.cluster.sim_gpu import capped_speed
from planner.sim.evaluation.run_batch import RunJob, run_jobs
from planner.sim.evaluation.scores import Scores
from planner.sim.policies.ours import OursSettings
from planner.sim.policies.tuning import capacity
from planner.sim.workload.generated import ANSWER_HEAVY, PROMPT_HEAVY, Figures, flipping
from planner.sim.workload.scenario import BudgetSteps, Scenario, card_of, disaggregated

CARD, STARTUP_S, TTFT_MS, ITL_MS = "h100", 60.0, 1000.0, 40.0
FLIP_S, FLIPS = 600.0, 4
MIX_SEED = 1
"""Of the requests whose mean lengths say what a load of 1.0 is; the load itself has a seed of its own."""
PREFILL_BUSY = 0.7
STEPS = (0.8, 0.5, 0.7, 0.6)
STEP_OFFSET_S = 300.0
PREFILL_SHARES = (0.8, 1.0, 1.25)
"""Of the even cap, what a prefill GPU gets in the rows of caps by role; decode gets the rest."""
MOVER_STEPS_W = (25, 50, 100)
PEERS = ("tdp", "even:0.8", "uniform", "role", "roles", "steer", "mover:50", "mover")
BEST = {"roles": "caps by role, best", "mover": "mover, best step", "uniform": "uniform caps, best split"}


@dataclass(frozen=True, slots=True)
class ShortCase:
    """A site and its shortage."""

    gpus: int
    load: float
    share: float | None
    """Of the nameplate; None: the steps."""
    seed: int = 1

    @property
    def name(self) -> str:
        return f"{self.gpus} GPUs, load {self.load:g}, {'steps' if self.share is None else format(self.share, '.0%')}"


def served_per_s(profile: Profile, figures: Figures, gpus: int, cap_mw: float) -> float:
    """Requests a second that ``gpus`` serve within the targets, all at ``cap_mw``, with the best split for this mix."""
    mix = Trace.of("flipping", itertools.islice(flipping(MIX_SEED, ((figures, 1.0),), 1e9), 2000))
    prefill, decode = disaggregated(profile, CARD)
    law = engine_law(profile)
    assert law.prefill is not None
    at_prefill, at_decode = (capped_speed(pool.curve, cap_mw) for pool in (prefill, decode))
    prompt_s = float(np.mean([law.prefill.alone_s(isl) for isl in mix.isl])) / at_prefill / PREFILL_BUSY
    at_full = Scenario(
        mix, profile, ClusterSpec(1, gpus, card_of(CARD)), (prefill, decode), TTFT_MS, ITL_MS * at_decode
    )
    answer_s = float(np.mean(mix.osl)) * ITL_MS / 1000 / capacity(at_full).decode_batch
    return gpus / (prompt_s + answer_s)


def scenario(case: ShortCase) -> Scenario:
    """The case's cluster, load and budget."""
    profile = profile_of_both_phases(None, CARD)
    until_s = FLIP_S * FLIPS
    card = card_of(CARD)
    nameplate_mw = case.gpus * card.default_mw
    shares = STEPS if case.share is None else (case.share,)
    even_mw = card.default_mw * sum(shares) / len(shares)
    phases = tuple(
        (figures, case.load * served_per_s(profile, figures, case.gpus, even_mw))
        for figures in (PROMPT_HEAVY, ANSWER_HEAVY)
    )
    steps = tuple(
        (max(0.0, FLIP_S * number - STEP_OFFSET_S), int(nameplate_mw * share)) for number, share in enumerate(shares)
    )
    half = case.gpus // 2
    return Scenario(
        Trace.of(
            "flipping", itertools.takewhile(lambda request: request.t_s < until_s, flipping(case.seed, phases, FLIP_S))
        ),
        profile,
        ClusterSpec(-(-case.gpus // 8), min(8, case.gpus), card),
        disaggregated(profile, CARD, startup_s=STARTUP_S, start=(half, case.gpus - half)),
        TTFT_MS,
        ITL_MS,
        budget=BudgetSteps(steps),
    )


def candidates(case: ShortCase, world: Scenario, peer: str) -> Iterator[str]:
    """The policies that a peer's row takes its best from."""
    assert world.budget is not None
    even_w = min(mw for _, mw in world.budget.steps) / case.gpus / 1000
    stride = max(1, case.gpus // 8)
    for prefill in range(3 * stride, 6 * stride, stride):
        split = f"static:{prefill}p{case.gpus - prefill}d"
        if peer == "roles":
            for share in PREFILL_SHARES:
                at_prefill = even_w * share
                at_decode = (even_w * case.gpus - at_prefill * prefill) / (case.gpus - prefill)
                if at_decode > 0:
                    yield f"{split}+roles:{at_prefill:.0f}/{at_decode:.0f}"
        elif peer == "mover":
            yield from (f"{split}+mover:{step}" for step in MOVER_STEPS_W)
        else:
            yield f"{split}+{peer}"


def measured(case: ShortCase, peers: Sequence[str], processes: int) -> dict[str, Any]:
    """Scores by row: ours, and of each of ``peers`` its best."""
    world = scenario(case)
    wanted = {peer: list(candidates(case, world, peer)) for peer in peers}
    names = ["ours", *dict.fromkeys(name for some in wanted.values() for name in some)]
    jobs = [RunJob(name, 0, name, world.budget, OursSettings()) for name in names]
    scores: dict[str, Scores] = {}
    for result in run_jobs(world, jobs, processes, lambda number, share: None):
        scores[result.job.policy] = result.scores
        print(f"{case.name}: {len(scores)} of {len(jobs)}", end="\r", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rows = {"ours": scores["ours"]} | {
        peer: max((scores[name] for name in some), key=lambda one: one.good_requests) for peer, some in wanted.items()
    }
    return {"case": case.name, "requests": len(world.trace), "rows": {key: one.as_json() for key, one in rows.items()}}


def table(found: Sequence[dict[str, Any]], peers: Sequence[str]) -> str:
    """Markdown: a row a case, the share of good requests by policy, and ours as a multiple of the best peer's."""
    head = ["case", "ours", *(BEST.get(peer, peer) for peer in peers), "ours / best peer", "over budget, ours"]
    lines = [f"| {' | '.join(head)} |", "| " + " | ".join("---" for _ in head) + " |"]
    for one in found:
        rows = one["rows"]
        best = max((rows[peer]["good_requests"] for peer in peers), default=0)
        cells = [f"{rows['ours']['good_share']:.1%}"]
        for peer in peers:
            split = rows[peer]["policy"].removeprefix("static:").partition("+")[0]
            cells.append(f"{rows[peer]['good_share']:.1%} ({split})")
        ratio = f"{rows['ours']['good_requests'] / max(1, best):.2f}" if peers else "-"
        over = f"{rows['ours']['violation_watt_seconds']:.0f} Ws"
        lines.append(f"| {' | '.join([one['case'], *cells, ratio, over])} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--shares", default="0.5,0.6,0.7,0.8,steps")
    parser.add_argument("--loads", default="0.4,0.55,0.7,1.0")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    shares = [None if text == "steps" else float(text) for text in args.shares.split(",")]
    cases = [ShortCase(args.gpus, float(load), share, args.seed) for share in shares for load in args.loads.split(",")]
    peers = [peer for peer in args.peers.split(",") if peer]
    if unknown := set(peers) - set(PEERS):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    found = []
    for case in cases:
        found.append(measured(case, peers, args.processes))
        if args.json is not None:
            args.json.write_text(json.dumps(found, indent=1))
    print(table(found, peers))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
