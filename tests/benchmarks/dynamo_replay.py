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
from typing import Any, TypeAlias

REPOSITORY = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))

from tests.benchmarks.dynamo_replay_support import environment, modes, ours, static_fleets, traces  # noqa: E402

SHARED = Path(os.environ.get("WATTSCALE_SHARED") or REPOSITORY.parent / "shared") / "data"
WORKER = Path(__file__).resolve().parent / "dynamo_replay_support" / "worker.py"
GOOD_SHARE = 0.97
AS_GOOD = 1e-3
"""A static fleet has the same share as a policy where it misses no more than this of it."""


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
    turned: bool = False
    """The part before ``from_s`` follows after the end: another race of the same trace."""
    start: tuple[int, int] = (5, 2)
    startup_s: float = 0.0
    max_model_len: int | None = None
    """The engines' longest context, beyond which they reject a prompt; None: what their KV cache holds. Dynamo's easy
    modes scale prefill by waiting tokens as a share of it, and without it not at all."""

    def gpus(self) -> tuple[int, int]:
        """GPUs of a prefill and of a decode worker."""
        held = ours.gpus_per_engine(self.profile)
        return held["prefill"], held["decode"]


_AZURE, _QWEN_32B = SHARED / "traces" / "azure2023_conv.csv.gz", SHARED / "profiles" / "qwen3-32b_h200_vllm_tp1p_tp1d"
_SERVEGEN = SHARED / "traces" / "servegen_m_large_36h_x0.02.csv.gz"
STANDING = (
    Race("azure-x4", _AZURE, _QWEN_32B, 1000.0, 40.0, rate=4.0, max_model_len=16_384),
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
        _SERVEGEN,
        _QWEN_32B,
        ttft_ms=1000.0,
        itl_ms=40.0,
        rate=4.0,
        until_s=24 * 3600.0,
        max_model_len=32_768,
    ),
)
HOURS = (
    replace(STANDING[0], name="azure-hour", rate=1.0, start=(2, 1), turned=True),
    replace(STANDING[1], name="mooncake-hour", turned=True),
    replace(STANDING[2], name="servegen-hour"),
    Race(
        "conv24-hour",
        SHARED / "traces" / "azure2024_conv_weekday24h_x0.05.csv.gz",
        SHARED / "profiles" / "llama3.1-70b_h100_vllm_tp4p_tp4d",
        ttft_ms=1000.0,
        itl_ms=25.0,
        rate=5.0,
        start=(4, 1),
        max_model_len=32_768,
    ),
)
HOUR_S = 3600.0
OFFSETS_S: dict[str, tuple[float, float, float]] = {
    "azure-hour": (0.0, 1200.0, 2400.0),
    "mooncake-hour": (0.0, 1200.0, 2400.0),
    "servegen-hour": (43_200.0, 86_400.0, 100_800.0),
    "conv24-hour": (0.0, 28_800.0, 57_600.0),
}
"""Where the races of an hour begin, in the trace's own time. A trace of an hour is turned; the hours of the longer ones
are those of ``planner/sim/BOUND.md`` and, of the weekday, the first after each third of it."""


def three_hours(race: Race) -> list[Race]:
    """The races of an hour, by offset; each is as long as the trace where that is an hour itself."""
    return [
        replace(
            race,
            name=f"{race.name}@{begun:g}",
            from_s=begun,
            until_s=None if race.turned else begun + HOUR_S * race.rate,
        )
        for begun in OFFSETS_S[race.name]
    ]


RACES = (*STANDING, *(part for race in HOURS for part in three_hours(race)))
ENGINE: dict[str, int] = {"block_size": 64, "max_num_seqs": 256, "max_num_batched_tokens": 8192}
"""The simulator's defaults; the KV cache is the profile's."""


Fleets: TypeAlias = dict[tuple[str, int, int], dict[str, Any]]


class Referee:
    """Runs jobs in the referee's environment. ``work`` holds converted traces and tables for the time of the run.

    ``static``: the static fleets replayed before, by race, prefill and decode workers; none of them ever starts one.
    """

    def __init__(self, race: Race, work: Path, router: str, quiet: bool, static: Fleets | None = None) -> None:
        self._race, self._work, self._router, self._quiet = race, work, router, quiet
        self._static = {} if static is None else static
        self._python = environment.python()
        self._trace = work / f"{race.name}.jsonl"
        if not self._trace.exists():
            count = traces.convert(race.trace, self._trace, race.rate, race.until_s, race.from_s, race.turned)
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

    def static(self, prefill: int, decode: int) -> dict[str, Any]:
        """A static fleet, replayed once."""
        asked = self._race.name, prefill, decode
        if asked not in self._static:
            self._static[asked] = self.run(f"static {prefill}p{decode}d", {"kind": "static"}, (prefill, decode))
        return {**self._static[asked], "startup_s": self._race.startup_s}

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


def policies(names: Sequence[str], race: Race, args: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names to policies; ``ours`` expands to one for each interval and quantile, Dynamo's modes to their sweep."""
    for name in names:
        if name == "ours":
            for interval_s in args.interval_s or [None]:
                called = "ours" if interval_s is None else f"ours {interval_s:g} s"
                base = {} if interval_s is None else {"interval_s": interval_s}
                yield called, {"kind": "ours", "settings": base}
                for quantile in args.quantiles:
                    yield f"{called} q={quantile:g}", {"kind": "ours", "settings": {**base, "ttft_quantile": quantile}}
        elif name in modes.MODES:
            for variant, given in modes.variants(name).items():
                if args.sweep or not variant:
                    config = modes.planner_config(name, race.ttft_ms, race.itl_ms, given)
                    yield f"{name} ({variant})" if variant else name, {"kind": "dynamo", "config": config}
        else:
            known = ", ".join(("static-best", "static-same", "ours", *modes.MODES))
            raise SystemExit(f"--policies: no policy {name!r}; there are {known}, and fleets like 6p2d")


def fleet(name: str) -> tuple[int, int] | None:
    """``6p2d`` as (6, 2); None for anything else."""
    prefill, found, rest = name.partition("p")
    if found and prefill.isdigit() and rest.endswith("d") and rest[:-1].isdigit():
        return int(prefill), int(rest[:-1])
    return None


def race_rows(race: Race, args: argparse.Namespace, work: Path, static: Fleets) -> Iterator[dict[str, Any]]:
    """All asked policies of one race."""
    referee = Referee(race, work, args.router, args.quiet, static)
    names = args.policies.split(",")
    rest = [name for name in names if fleet(name) is None and name not in ("static-best", "static-same")]
    for name in names:
        if (counts := fleet(name)) is not None:
            yield referee.static(*counts)
        elif name == "static-best":
            yield from static_fleets.on_the_way(referee.static, args.good_share, race.gpus())
    for name, policy in policies(rest, race, args):
        row = referee.run(name, policy, race.start)
        if "static-same" in names:
            mean = row["mean_workers"]
            near = max(1, round(0.8 * mean["prefill"])), max(1, round(0.8 * mean["decode"]))
            same = static_fleets.smallest(referee.static, row["good_share"] - AS_GOOD, race.gpus(), near)
            if same is not None:
                row |= {"same": "{}p{}d".format(*same["start"]), "over_static": row["gpu_hours"] / same["gpu_hours"]}
                row |= {"same_share": same["good_share"], "same_gpu_hours": same["gpu_hours"]}
        yield row


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
        "smallest static fleet as good",
        "times its GPU-h",
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
                "{same} {same_share:.2%} {same_gpu_hours:.3f}".format(**row) if "same" in row else "",
                f"{row['over_static']:.2f}" if "same" in row else "",
                str(row["changes"]),
                *missed,
                f"{row['step_us']:.0f}" if "step_us" in row else "",
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--race", action="append", choices=[r.name for r in RACES], help="one of these (repeatable)")
    parser.add_argument("--trace", type=Path, help="CSV or Mooncake JSONL, .gz or not")
    parser.add_argument("--profile", type=Path, help="folder with prefill_raw_data.json and decode_raw_data.json")
    parser.add_argument("--ttft-ms", type=float)
    parser.add_argument("--itl-ms", type=float)
    parser.add_argument("--rate", type=float, default=1.0, help="replay the trace this many times faster")
    parser.add_argument("--until-s", type=float, help="only the first seconds of the trace's own time")
    parser.add_argument("--from-s", type=float, help="leave out this much of the trace's own time")
    parser.add_argument("--interval-s", type=float, action="append", help="of ours (repeatable; default: as shipped)")
    parser.add_argument("--sweep", action="store_true", help="Dynamo's modes with a few settings of their own")
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
        chosen = [race for race in RACES if race.name in args.race] if args.race else list(STANDING)
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
    static: Fleets = {}
    with tempfile.TemporaryDirectory(prefix="wattscale-referee-") as work:
        for race in asked:
            rows += race_rows(race, args, Path(work), static)
    if args.json is not None:
        report = {"dynamo": environment.VERSION, "engine": ENGINE, "modes": modes.MODES, "rows": rows}
        args.json.write_text(json.dumps(report, indent=1))
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
