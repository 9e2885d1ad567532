"""NVIDIA's own simulator as referee: Wattscale's ``step`` inside Dynamo 1.6.1's offline replay, beside its planner.

Owns the races: which trace, profile, targets, start-up time and policies, run one after the other on a CPU, and the
table and JSON of what came out. The environment is made on the first run (``dynamo_replay_support/environment.py``); no
text or code of Dynamo's is in this project. Run it from anywhere:

    python tests/benchmarks/dynamo_replay.py                      the three standing races
    python tests/benchmarks/dynamo_replay.py --race azure-x4 --startup-s 60 --policies ours,dynamo-sla
    python tests/benchmarks/dynamo_replay.py --trace T.csv.gz --profile DIR --ttft-ms 1000 --itl-ms 40 --rate 4
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))

from tests.benchmarks.dynamo_replay_support import environment, modes, traces  # noqa: E402

SHARED = Path(os.environ.get("WATTSCALE_SHARED") or REPOSITORY.parent / "shared") / "data"
WORKER = Path(__file__).resolve().parent / "dynamo_replay_support" / "worker.py"
GOOD_SHARE = 0.97
LARGEST_FLEET = 24


@dataclass(frozen=True, slots=True)
class Race:
    """One trace on one engine with its targets. ``start`` is prefill and decode workers at time 0."""

    name: str
    trace: Path
    profile: Path
    ttft_ms: float
    itl_ms: float
    rate: float = 1.0
    until_s: float | None = None
    from_s: float = 0.0
    """The part before it is left out; in the trace's own time, like ``until_s``."""
    start: tuple[int, int] = (5, 2)
    startup_s: float = 0.0
    max_model_len: int | None = None
    """The engines' longest context, beyond which they reject a prompt; None: what their KV cache holds. Dynamo's easy
    modes scale prefill by waiting tokens as a share of it, and without it not at all."""


RACES = (
    Race(
        "azure-x4",
        SHARED / "traces" / "azure2023_conv.csv.gz",
        SHARED / "profiles" / "qwen3-32b_h200_vllm_tp1p_tp1d",
        ttft_ms=1000.0,
        itl_ms=40.0,
        rate=4.0,
        max_model_len=16_384,
    ),
    Race(
        "mooncake",
        SHARED / "traces" / "mooncake_fast25_conversation.jsonl.gz",
        SHARED / "profiles" / "dynamo_h200_8b_fp8_tp1p_tp1d",
        ttft_ms=2000.0,
        itl_ms=50.0,
        start=(3, 1),
        max_model_len=131_072,
    ),
    Race(
        "servegen-x4",
        SHARED / "traces" / "servegen_m_large_36h_x0.02.csv.gz",
        SHARED / "profiles" / "qwen3-32b_h200_vllm_tp1p_tp1d",
        ttft_ms=1000.0,
        itl_ms=40.0,
        rate=4.0,
        until_s=24 * 3600.0,
        max_model_len=32_768,
    ),
)
ENGINE: dict[str, int] = {"block_size": 64, "max_num_seqs": 256, "max_num_batched_tokens": 8192}
"""The simulator's defaults; the KV cache is the profile's."""


class Referee:
    """Runs jobs in the referee's environment. ``work`` holds converted traces and tables for the time of the run."""

    def __init__(self, race: Race, work: Path, router: str, quiet: bool) -> None:
        self._race, self._work, self._router, self._quiet = race, work, router, quiet
        self._python = environment.python()
        self._trace = work / f"{race.name}.jsonl"
        if not self._trace.exists():
            count = traces.convert(race.trace, self._trace, race.rate, race.until_s, race.from_s)
            self._report(f"{race.name}: {count} requests of {race.trace.name} at {race.rate:g} times their rate")

    def run(self, name: str, policy: Mapping[str, Any], start: tuple[int, int]) -> dict[str, Any]:
        """One replay. Raises RuntimeError with the worker's last words."""
        self._report(f"{self._race.name}: {name} ...")
        began = time.perf_counter()
        result = self._work / "result.json"
        job = {
            **self._job(),
            "policy": policy,
            "start": {"prefill": start[0], "decode": start[1]},
            "result": str(result),
        }
        done = subprocess.run(
            [str(self._python), str(WORKER)], input=json.dumps(job), text=True, capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{name}: the replay failed:\n{done.stderr[-2000:]}")
        scored: dict[str, Any] = json.loads(result.read_text())
        took = time.perf_counter() - began
        share, hours = scored["good_share"], scored["gpu_hours"]
        self._report(f"{self._race.name}: {name}: {share:.1%} good at {hours:.2f} GPU-h ({took:.0f} s)")
        return {"race": self._race.name, "startup_s": self._race.startup_s, "policy": name, "start": start, **scored}

    def _job(self) -> dict[str, Any]:
        race = self._race
        decode = json.loads((race.profile / "decode_raw_data.json").read_text())
        cache = int(decode["max_kv_tokens"])
        longest = cache if race.max_model_len is None else min(cache, race.max_model_len)
        return {
            "trace": str(self._trace),
            "profile": str(race.profile),
            "work": str(self._work),
            "ttft_ms": race.ttft_ms,
            "itl_ms": race.itl_ms,
            "startup_s": race.startup_s,
            "router": self._router,
            "limits": {**ENGINE, "max_kv_tokens": cache, "max_model_len": longest},
        }

    def _report(self, text: str) -> None:
        if not self._quiet:
            print(text, file=sys.stderr, flush=True)


def smallest_static(referee: Referee, share: float, most: int = LARGEST_FLEET) -> Iterator[dict[str, Any]]:
    """Static fleets on the way to the smallest that reaches ``share``, that one last: a clairvoyant's flat fleet.

    Climbs by the larger miss: a decode worker where decode loses requests, else a prefill worker; then tries to take
    one of either away again.
    """
    prefill, decode = 2, 1
    seen: dict[tuple[int, int], dict[str, Any]] = {}

    def measured(p: int, d: int) -> dict[str, Any]:
        if (p, d) not in seen:
            seen[p, d] = referee.run(f"static {p}p{d}d", {"kind": "static"}, (p, d))
        return seen[p, d]

    while prefill + decode < most:
        found = measured(prefill, decode)
        if found["good_share"] >= share:
            break
        misses = found["misses"]
        if misses["decode"] >= misses["queue"] or _waits_for_decode(found):
            decode += 1
        else:
            prefill += 1
    for p, d in ((prefill - 1, decode), (prefill, decode - 1)):
        if p >= 1 and d >= 1 and measured(p, d)["good_share"] >= share:
            prefill, decode = p, d
    best = seen.pop((prefill, decode))
    yield from seen.values()
    yield best


def _waits_for_decode(found: Mapping[str, Any]) -> bool:
    """Prompts that wait for room in a decode cache are late at first token, and many of them are slow too."""
    return bool(found["misses"]["decode"] > 0.2 * max(1, found["misses"]["queue"]))


def policies(names: Sequence[str], race: Race, quantiles: Sequence[float]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names to policies; ``ours`` expands to one for each setting of the quality knob."""
    for name in names:
        if name == "ours":
            yield "ours", {"kind": "ours"}
            for quantile in quantiles:
                yield f"ours q={quantile:g}", {"kind": "ours", "settings": {"ttft_quantile": quantile}}
        elif name in modes.MODES:
            yield name, {"kind": "dynamo", "config": modes.planner_config(name, race.ttft_ms, race.itl_ms)}
        else:
            known = ", ".join(("static", "static-best", "ours", *modes.MODES))
            raise SystemExit(f"--policies: no policy {name!r}; there are {known}, and fleets like 6p2d")


def fleet(name: str) -> tuple[int, int] | None:
    """``6p2d`` as (6, 2); None for anything else."""
    prefill, found, rest = name.partition("p")
    if found and prefill.isdigit() and rest.endswith("d") and rest[:-1].isdigit():
        return int(prefill), int(rest[:-1])
    return None


def race_rows(race: Race, args: argparse.Namespace, work: Path) -> Iterator[dict[str, Any]]:
    """All asked policies of one race."""
    referee = Referee(race, work, args.router, args.quiet)
    rest = []
    for name in args.policies.split(","):
        if (counts := fleet(name)) is not None:
            yield referee.run(f"static {name}", {"kind": "static"}, counts)
        elif name == "static-best":
            yield from smallest_static(referee, args.good_share)
        else:
            rest.append(name)
    for name, policy in policies(rest, race, args.quantiles):
        yield referee.run(name, policy, race.start)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table; misses by reason in percent of all requests."""
    reasons = list(rows[0]["misses"]) if rows else []
    head = [
        "race",
        "start-up",
        "policy",
        "start",
        "good %",
        "of the reachable %",
        "of tokens %",
        "GPU-h",
        "changes",
        *(f"{r} %" for r in reasons),
        "step µs",
    ]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        missed = [f"{100.0 * row['misses'][reason] / max(1, row['requests']):.2f}" for reason in reasons]
        lines.append(
            [
                row["race"],
                f"{row['startup_s']:g} s",
                row["policy"],
                "{}p{}d".format(*row["start"]),
                *(f"{100.0 * row[share]:.2f}" for share in ("good_share", "reachable_share", "token_share")),
                f"{row['gpu_hours']:.3f}",
                str(row["changes"]),
                *missed,
                f"{row['step_us']:.0f}" if "step_us" in row else "",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--race", action="append", choices=[r.name for r in RACES], help="a standing race (repeatable)")
    parser.add_argument("--trace", type=Path, help="CSV or Mooncake JSONL, .gz or not")
    parser.add_argument("--profile", type=Path, help="folder with prefill_raw_data.json and decode_raw_data.json")
    parser.add_argument("--ttft-ms", type=float)
    parser.add_argument("--itl-ms", type=float)
    parser.add_argument("--rate", type=float, default=1.0, help="replay the trace this many times faster")
    parser.add_argument("--until-s", type=float, help="only the first seconds of the trace's own time")
    parser.add_argument("--from-s", type=float, help="leave out this much of the trace's own time")
    parser.add_argument("--startup-s", type=float, action="append", help="worker start-up time (repeatable; default 0)")
    parser.add_argument("--max-model-len", type=int, help="the engines' longest context; default: the race's")
    parser.add_argument("--start", help="fleet at time 0, like 5p2d")
    parser.add_argument("--router", default="round_robin", choices=("round_robin", "kv_router"))
    parser.add_argument("--policies", default="static-best,ours," + ",".join(modes.MODES))
    parser.add_argument("--quantiles", type=lambda text: [float(q) for q in text.split(",")], default=[])
    parser.add_argument("--good-share", type=float, default=GOOD_SHARE, help="what static-best has to reach")
    parser.add_argument("--json", type=Path, help="write all results there")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    return parser.parse_args(argv)


def races(args: argparse.Namespace) -> list[Race]:
    """The races asked for, one for each start-up time."""
    if args.trace is not None:
        if args.profile is None or args.ttft_ms is None or args.itl_ms is None:
            raise SystemExit("--trace needs --profile, --ttft-ms and --itl-ms")
        chosen = [
            Race(args.trace.name.partition(".")[0], args.trace, args.profile, args.ttft_ms, args.itl_ms, args.rate)
        ]
    else:
        chosen = [race for race in RACES if not args.race or race.name in args.race]
    if args.start is not None:
        if (start := fleet(args.start)) is None:
            raise SystemExit(f"--start: {args.start!r} is not a fleet like 5p2d")
        chosen = [replace(race, start=start) for race in chosen]
    if args.until_s is not None:
        chosen = [replace(race, until_s=args.until_s) for race in chosen]
    if args.from_s is not None:
        chosen = [replace(race, from_s=args.from_s) for race in chosen]
    if args.max_model_len is not None:
        chosen = [replace(race, max_model_len=args.max_model_len) for race in chosen]
    for race in chosen:
        if not race.trace.exists() or not race.profile.exists():
            raise SystemExit(
                f"{race.name}: {race.trace} or {race.profile} is not there: name a --trace and a --profile"
            )
    return [replace(race, startup_s=startup) for race in chosen for startup in args.startup_s or [0.0]]


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments(argv)
    asked = races(args)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="wattscale-referee-") as work:
        for race in asked:
            rows += race_rows(race, args, Path(work))
    if args.json is not None:
        from tests.benchmarks.dynamo_replay_support.ours import SETTINGS

        report = {"dynamo": environment.VERSION, "engine": ENGINE, "ours": SETTINGS, "modes": modes.MODES, "rows": rows}
        args.json.write_text(json.dumps(report, indent=1))
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
