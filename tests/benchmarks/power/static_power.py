"""The load that a power budget carries: TDP provisioning, uniform caps, caps by phase, counts and caps jointly.

    python -m tests.benchmarks.power.static_power [--json]

24 GPUs of 700 W, budgets of 0.7, 0.8 and 1.0 times what 16 of them draw at TDP, three decode curves. A unit of load
takes one GPU of prefill and two of decode at full speed. All caps are multiples of 5 W and never below half of TDP;
GPUs that are not used are off. The baselines choose their best split of GPUs too: only the power policy differs.

- ``tdp``: as many GPUs as the budget feeds at TDP, each at full speed.
- ``uniform``: any number of GPUs, one cap for all, the best such pair.
- ``phase``: caps by role with counts not part of the choice: the better of each phase at what it can use (P_u) with as
  many GPUs as that feeds, and the best pair of caps for all 24 GPUs in the work's own ratio.
- ``joint``: the optimiser.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from planner.adapters.power_priors import Phase, curve, gpu
from planner.core.allocation.optimiser.solve import allocate
from planner.core.power.curve import speed
from planner.domain.demand import DeploymentDemand, PoolDemand, SiteLimits, Weights
from planner.domain.ids import DeploymentId, PoolId, SiteId
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.units import Milliwatts

GPUS, FED_AT_TDP, STEP_MW = 24, 16, 5_000
BUDGETS = (0.7, 0.8, 1.0)
DECODES = (Phase.DECODE_DENSE, Phase.DECODE_MOE, Phase.SINGLE_STREAM)
WORK = (1.0, 2.0)
"""GPU-seconds of prefill and of decode at full speed in a unit of load."""
LOAD_ONLY = Weights(sla=1e12, energy=0.0, gpu=0.0, churn=0.0)
ABOVE_ALL = 12.0
"""Units of load offered: more than 24 GPUs could carry. Nothing is good then, and what drains fastest is taken."""


@dataclass(frozen=True, slots=True)
class Row:
    """One budget and decode curve: units of load carried under each policy."""

    decode: str
    budget: float
    tdp: float
    uniform: float
    phase: float
    joint: float
    joint_choice: str


def carried(counts: tuple[int, int], speeds: tuple[float, float]) -> float:
    return min(n * s / work for n, s, work in zip(counts, speeds, WORK, strict=True))


def splits(gpus: int) -> Iterator[tuple[int, int]]:
    yield from ((n, gpus - n) for n in range(1, gpus))


def tdp(budget_mw: int, curves: tuple[PowerCurve, PowerCurve]) -> float:
    gpus = min(GPUS, budget_mw // curves[0].max_mw)
    return max(carried(split, (1.0, 1.0)) for split in splits(gpus))


def uniform(budget_mw: int, curves: tuple[PowerCurve, PowerCurve]) -> float:
    best = 0.0
    for cap in range(curves[0].useful_mw, curves[0].max_mw + 1, STEP_MW):
        speeds = (speed(curves[0], cap), speed(curves[1], cap))
        gpus = min(GPUS, budget_mw // cap)
        best = max(best, *(carried(split, speeds) for split in splits(gpus)))
    return best


def by_phase(budget_mw: int, curves: tuple[PowerCurve, PowerCurve]) -> float:
    caps = tuple(-(-c.p_u_mw // STEP_MW) * STEP_MW for c in curves)
    fits = ((p, d) for p in range(1, GPUS) for d in range(1, GPUS - p + 1) if p * caps[0] + d * caps[1] <= budget_mw)
    at_most = max(carried(split, (1.0, 1.0)) for split in fits)
    counts = (round(GPUS * WORK[0] / sum(WORK)), round(GPUS * WORK[1] / sum(WORK)))
    every = range(curves[0].useful_mw, curves[0].max_mw + 1, STEP_MW)
    pairs = ((p, d) for p in every for d in every if counts[0] * p + counts[1] * d <= budget_mw)
    in_ratio = (carried(counts, (speed(curves[0], p), speed(curves[1], d))) for p, d in pairs)
    return max(at_most, *in_ratio, 0.0)


def joint(budget_mw: int, curves: tuple[PowerCurve, PowerCurve]) -> tuple[float, str]:
    pools = {}
    for role, work, law in zip((Role.PREFILL, Role.DECODE), WORK, curves, strict=True):
        counts = range(1, GPUS)
        name = PoolId(role.value)
        need = tuple(ABOVE_ALL * work / n for n in counts)
        pools[name] = PoolDemand(name, role, 1, 1, 1, need, (1.0,) * len(need), law, round(ABOVE_ALL * work))
    site, deployment = SiteId("bench"), DeploymentId("bench")
    answer = allocate(
        [DeploymentDemand(deployment, site, pools)],
        SiteLimits(site, Milliwatts(budget_mw), GPUS, Milliwatts(0)),
        LOAD_ONLY,
    )
    said = ", ".join(f"{g.replicas} {name} at {g.setpoint.cap_mw // 1000} W" for (_, name), g in answer.pools.items())
    spent = sum(g.replicas * g.setpoint.cap_mw for g in answer.pools.values())
    assert spent <= budget_mw
    grants = list(answer.pools.values())
    return carried((grants[0].replicas, grants[1].replicas), (grants[0].speed, grants[1].speed)), said


def rows() -> list[Row]:
    h100 = gpu("h100")
    found = []
    for decode in DECODES:
        curves = (curve(h100, Phase.PREFILL), curve(h100, decode))
        for share in BUDGETS:
            budget = round(share * FED_AT_TDP * curves[0].max_mw)
            load, choice = joint(budget, curves)
            found.append(
                Row(
                    decode=decode.value,
                    budget=share,
                    tdp=tdp(budget, curves),
                    uniform=uniform(budget, curves),
                    phase=by_phase(budget, curves),
                    joint=load,
                    joint_choice=choice,
                )
            )
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    args = parser.parse_args(argv)
    found = rows()
    if args.json:
        print(json.dumps([asdict(row) for row in found], indent=1))
        return 0
    print(f"{'decode':<14}{'budget':>7}{'tdp':>8}{'uniform':>9}{'phase':>8}{'joint':>8}{'over tdp':>10}  joint choice")
    for row in found:
        gain = f"{row.joint / row.tdp - 1:+.1%}"
        print(
            f"{row.decode:<14}{row.budget:>7.1f}{row.tdp:>8.3f}{row.uniform:>9.3f}{row.phase:>8.3f}{row.joint:>8.3f}"
            f"{gain:>10}  {row.joint_choice}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
