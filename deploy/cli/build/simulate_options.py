"""The options of `wattscale simulate`, checked and loaded before any run begins."""

from __future__ import annotations

import argparse
import itertools
import math
import re
from array import array
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from deploy.cli.errors import UsageError
from deploy.cli.numbers import LONGEST_S, MOST_GPUS, MOST_WATTS, number, whole
from deploy.demo.demo_profile import profile_of_both_phases
from planner.adapters.traces import Trace, TraceError, read_trace
from planner.domain.profile import Profile
from planner.domain.request import Request
from planner.sim.cluster.plant import ClusterSpec
from planner.sim.cluster.worker_pool import PoolSpec
from planner.sim.policies.catalogue import UnknownPolicyError, make
from planner.sim.policies.ours import OursSettings
from planner.sim.workload.generated import generated
from planner.sim.workload.scenario import BudgetSteps, Scenario, card_of, disaggregated

GENERATED_S = 3600.0
N = TypeVar("N", int, float)

COPY_SHIFT_S = 0.37
"""Shift between copies of a trace, in seconds, so that requests do not coincide merely because they are copies."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What to run, checked and loaded."""

    scenario: Scenario
    policies: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: OursSettings
    what_if: tuple[float, ...]


def asked(args: argparse.Namespace) -> Asked:
    """Options as what to run: files read, numbers checked. Raises UsageError with one line for the first bad one."""
    profile = profile_of_both_phases(args.profile, args.gpu)
    start = re.fullmatch(r"([0-9]{1,5})p([0-9]{1,5})d", args.start)
    if start is None:
        raise UsageError(f"--start {args.start}: write the workers as 5p2d")
    pools = pools_of(args, profile, (int(start[1]), int(start[2])))
    scenario = Scenario(
        trace=trace_of(args),
        profile=profile,
        cluster=ClusterSpec(args.nodes, args.gpus_per_node, card_of(args.gpu)),
        pools=tuple(replace(pool, mtbf_s=args.mtbf_s) for pool in pools),
        ttft_ms=args.ttft_ms,
        itl_ms=args.itl_ms,
        budget=_budget(args),
        truth=args.profile_error,
        duration_s=args.duration_s,
    )
    _fits(scenario)
    return Asked(
        scenario,
        _policies(args),
        _numbers(args.seeds, "--seeds", whole(0, 2**53)),
        OursSettings(interval_s=args.interval_s, ttft_quantile=args.ttft_quantile, slo_share=args.slo_share),
        _numbers(args.what_if_budget, "--what-if-budget", number(0, 10, above=True)) if args.what_if_budget else (),
    )


def pools_of(args: argparse.Namespace, profile: Profile, start: tuple[int, int]) -> tuple[PoolSpec, PoolSpec]:
    """A prefill and a decode pool of a profile on ``--gpu``, with ``start`` workers of each when the load begins."""
    moe = "moe" in profile.name.lower()
    return disaggregated(profile, args.gpu, startup_s=args.startup_s, start=start, moe=moe)


def trace_of(args: argparse.Namespace) -> Trace:
    """The load of ``simulate.add_load``'s options, or a generated one. Raises UsageError."""
    if args.trace is None and args.from_s:
        raise UsageError("--from leaves out the start of a trace: name one")
    if args.trace is None:
        end_s = args.duration_s or GENERATED_S
        requests = itertools.takewhile(lambda r: r.t_s < end_s, generated(0, requests_per_s=20.0, wave_s=end_s))
        return _as_trace("generated", requests)
    try:
        trace = read_trace(args.trace)
    except TraceError as error:
        raise UsageError(str(error)) from error
    if args.rate != 1.0:
        trace = trace.at_rate(args.rate)
    if args.from_s:
        trace = trace.between(args.from_s, math.inf)
        if not trace:
            raise UsageError(f"--from {args.from_s:g}: the trace has no request after it")
    return _laid_over(trace, args.copies) if args.copies > 1 else trace


def _as_trace(name: str, requests: itertools.takewhile[Request] | list[Request]) -> Trace:
    t_s, isl, osl = array("d"), array("l"), array("l")
    for request in requests:
        t_s.append(request.t_s)
        isl.append(request.isl)
        osl.append(request.osl)
    return Trace(name, t_s, isl, osl)


def _laid_over(trace: Trace, copies: int) -> Trace:
    shifted = [
        Request(t_s + copy * COPY_SHIFT_S, isl, osl)
        for copy in range(copies)
        for t_s, isl, osl in zip(trace.t_s, trace.isl, trace.osl, strict=True)
    ]
    return _as_trace(f"{trace.name} x {copies}", sorted(shifted))


def _budget(args: argparse.Namespace) -> BudgetSteps | None:
    if args.budget_watts is None:
        return None
    steps = []
    at, allowed = number(0, LONGEST_S), number(0, MOST_WATTS)
    for part in args.budget_watts.split(","):
        when, colon, watts = part.strip().rpartition(":")
        try:
            steps.append((at(when) if colon else 0.0, int(allowed(watts) * 1000)))
        except (ValueError, argparse.ArgumentTypeError):
            raise UsageError(f"--budget-watts {part!r}: write watts, or steps such as 0:16000,3600:11000") from None
    if steps[0][0] != 0.0 or any(b <= a for (a, _), (b, _) in itertools.pairwise(steps)):
        raise UsageError("--budget-watts: the first step must begin at 0, and each later one after the one before")
    return BudgetSteps(tuple(steps))


def _fits(scenario: Scenario) -> None:
    if scenario.gpus > MOST_GPUS:
        raise UsageError(f"--nodes times --gpus-per-node are {scenario.gpus} GPUs: at most {MOST_GPUS} are simulated")
    for pool in scenario.pools:
        if pool.gpus_per_replica > scenario.cluster.gpus_per_node:
            raise UsageError(
                f"a {pool.pool} worker of this profile needs {pool.gpus_per_replica} GPUs, more than --gpus-per-node"
            )
    held = sum(pool.replicas * pool.gpus_per_replica for pool in scenario.pools)
    if held > scenario.gpus:
        raise UsageError(f"--start needs {held} GPUs and the cluster has {scenario.gpus}")
    least = scenario.gpus * scenario.cluster.card.min_mw
    if scenario.budget is not None and min(mw for _, mw in scenario.budget.steps) < least:
        raise UsageError(
            f"--budget-watts: {scenario.gpus} GPUs cannot be capped below {least / 1000:g} W in sum; use fewer nodes"
        )


def _policies(args: argparse.Namespace) -> tuple[str, ...]:
    names = tuple(name.strip() for name in args.policy.split(",") if name.strip())
    if not names:
        raise UsageError("--policy is empty: name at least one policy")
    for name in names:
        try:
            make(name)
        except UnknownPolicyError as error:
            raise UsageError(f"--policy: {error}") from error
    return names


def _numbers(text: str, option: str, kind: Callable[[str], N]) -> tuple[N, ...]:
    try:
        return tuple(kind(part.strip()) for part in text.split(","))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"{option} {text!r}: numbers separated by commas: each {error}") from None
