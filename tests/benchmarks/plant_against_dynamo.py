"""Our plant beside NVIDIA's simulator: the same static fleets, trace, targets and timing table.

Owns the comparison that says how far the plant may be believed. The simulator's environment is the referee's
(``dynamo_replay.py``), which makes it on the first run. Run from anywhere:

    python tests/benchmarks/plant_against_dynamo.py [--race azure-x4] [--fleets 5p2d,6p2d] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402

from planner.adapters.profiles import load_profile  # noqa: E402
from planner.adapters.traces import read_trace  # noqa: E402
from planner.domain.pool import Role  # noqa: E402
from planner.domain.profile import DecodeProfile, PrefillProfile, Profile  # noqa: E402
from planner.sim.cluster.engine_timing import Batching  # noqa: E402
from planner.sim.cluster.plant import ClusterSpec, Plant, PlantSpec, TransferSpec  # noqa: E402
from planner.sim.cluster.worker_pool import Router  # noqa: E402
from planner.sim.workload.scenario import card_of, disaggregated  # noqa: E402
from tests.benchmarks.dynamo_replay import ENGINE, RACES, Race, Referee, fleet  # noqa: E402

FLEETS = {
    "azure-x4": ("4p2d", "5p2d", "6p2d", "8p2d", "6p3d"),
    "mooncake": ("3p1d", "4p1d", "5p1d"),
    "servegen-x4": ("4p1d", "6p2d"),
}


def as_simulated(profile: Profile, table: Path) -> Profile:
    """``profile`` with the times that NVIDIA's converter made of it, and the simulator's engine limits.

    The converter smooths: for the wheel's own 8B profile its ITL of a small batch is 6.7 ms where 4.4 were measured.
    """
    data = np.load(table)
    isl = tuple(float(n) for n in data["prefill_isl"])
    times = tuple(float(ms) for ms in data["prefill_ttft_ms"])
    return replace(
        profile,
        decode=_decode(data, profile.decode),
        prefill=PrefillProfile(isl, times, tuple(n / ms * 1000 for n, ms in zip(isl, times, strict=True))),
        max_num_seqs=ENGINE["max_num_seqs"],
        max_num_batched_tokens=ENGINE["max_num_batched_tokens"],
    )


def _decode(data: Mapping[str, Any], measured: DecodeProfile | None) -> DecodeProfile | None:
    """The table's points that an engine of these limits can meet."""
    if measured is None:
        return None
    kv, context, itl = (
        np.asarray(data[key]) for key in ("decode_active_kv_tokens", "decode_context_length", "decode_itl")
    )
    points = [
        (kv[i] / measured.max_kv_tokens, context[j], itl[i, j], kv[i] / context[j] / itl[i, j] * 1000)
        for i in range(0, len(kv), 4)
        for j in range(0, len(context), 4)
        if 1 <= kv[i] / context[j] <= ENGINE["max_num_seqs"] and itl[i, j] > 0
    ]
    columns = [tuple(float(value) for value in column) for column in zip(*points, strict=True)]
    return DecodeProfile(columns[0], columns[1], columns[2], columns[3], measured.max_kv_tokens)


def ours(race: Race, counts: tuple[int, int], table: Path) -> dict[str, Any]:
    """The plant set up as the simulator is: round robin, a chunk as one prompt, no time for KV transfers."""
    profile = as_simulated(load_profile(race.profile), table)
    trace = read_trace(race.trace)
    if race.until_s is not None:
        trace = trace.between(0.0, race.until_s)
    trace = trace.at_rate(race.rate)
    pools = tuple(
        replace(pool, router=Router.ROUND_ROBIN, prefix_cache=bool(trace.hash_ids), replicas=count)
        for pool, count in zip(disaggregated(profile, "h200", startup_s=0.0), counts, strict=True)
    )
    cluster = ClusterSpec(8, 8, card_of("h200"))
    spec = PlantSpec(
        cluster, pools, profile, transfer=TransferSpec(0, 0), batching=Batching.TOTAL, first_token=Role.DECODE
    )
    plant = Plant(spec)
    plant.submit(trace)
    while not plant.exhausted or plant.in_flight:
        plant.advance(plant.now_s + 60.0)
    records = plant.records
    return {
        "good_share": records.good(race.ttft_ms, race.itl_ms) / len(trace),
        "ttft_ms": float(records.column("ttft_ms").mean()),
        "itl_ms": float(records.column("itl_ms").mean()),
    }


def compare(race: Race, fleets: Sequence[str]) -> list[dict[str, Any]]:
    """One row a fleet."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="wattscale-plant-") as folder:
        referee = Referee(race, Path(folder), "round_robin", quiet=True)
        for name in fleets:
            counts = fleet(name)
            if counts is None:
                raise SystemExit(f"--fleets: {name!r} is not a fleet like 5p2d")
            theirs = referee.run(name, {"kind": "static"}, counts)
            mine = ours(race, counts, Path(folder) / f"{race.profile.name}.npz")
            rows.append(
                {
                    "race": race.name,
                    "fleet": name,
                    "good_share": [mine["good_share"], theirs["good_share"]],
                    "ttft_ms": [mine["ttft_ms"], theirs["ttft_ms"]["mean"]],
                    "itl_ms": [mine["itl_ms"], theirs["itl_ms"]["mean"]],
                }
            )
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table: the plant, the simulator, and how far apart they are."""
    lines = [
        "| race | fleet | good % plant / simulator | points | mean TTFT ms | off | mean ITL ms | off |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        good, ttft, itl = row["good_share"], row["ttft_ms"], row["itl_ms"]
        lines.append(
            f"| {row['race']} | {row['fleet']} | {good[0]:.2%} / {good[1]:.2%} | {100 * (good[0] - good[1]):+.2f} "
            f"| {ttft[0]:.0f} / {ttft[1]:.0f} | {ttft[0] / ttft[1] - 1:+.1%} "
            f"| {itl[0]:.2f} / {itl[1]:.2f} | {itl[0] / itl[1] - 1:+.1%} |"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--race", action="append", choices=[race.name for race in RACES])
    parser.add_argument("--fleets", help="static fleets, separated by commas")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    rows: list[dict[str, Any]] = []
    for race in RACES:
        if not args.race or race.name in args.race:
            rows += compare(race, args.fleets.split(",") if args.fleets else FLEETS[race.name])
    if args.json is not None:
        args.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
