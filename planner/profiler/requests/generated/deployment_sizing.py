"""GPUs of an engine, first replicas and power limits of a deployment, from the profile and the request."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from planner.adapters.power_priors import curve, gpu, phase_of
from planner.core.performance.engine_model import engine
from planner.core.power.curve import fitted_speed
from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.profile import Profile
from planner.domain.units import watts_from_mw
from planner.profiler.analysis.recommendation import Objective
from planner.profiler.requests.power_request import PowerRequest

DEFAULT_GPU = "h200"
CAP_STEP_MW = 5_000


class SizingError(ValueError):
    """No deployment can be generated. The message is one line."""


@dataclass(frozen=True, slots=True)
class PoolSizing:
    """One pool: GPUs and requests per second of a replica, replicas at the start, the limit of each of its GPUs."""

    gpus: int
    requests_per_s: float
    replicas: int
    cap_watts: int | None = None


@dataclass(frozen=True, slots=True)
class DeploymentSizing:
    """Both pools, the milliseconds that one request is expected to see, and what it cannot keep, a line each.

    ``decode_in_flight``: requests that a decode replica holds within the target.
    """

    prefill: PoolSizing
    decode: PoolSizing
    ttft_ms: float
    itl_ms: float
    decode_in_flight: int
    unmet: tuple[str, ...] = ()

    @property
    def aggregated(self) -> PoolSizing:
        """One pool whose engines do both phases, one request after the other."""
        gpus = max(self.prefill.gpus, self.decode.gpus)
        caps = [pool.cap_watts for pool in (self.prefill, self.decode) if pool.cap_watts is not None]
        rate = 1.0 / (1.0 / self.prefill.requests_per_s + 1.0 / self.decode.requests_per_s)
        replicas = max(self.prefill.replicas, self.decode.replicas)
        return PoolSizing(gpus, rate, replicas, max(caps) if caps else None)


def size_deployment(profile: Profile, request: PowerRequest) -> DeploymentSizing:
    """The sizes. Raises SizingError: a phase that the profile lacks, or a budget too small for one replica of each."""
    model, targets = engine(profile), request.targets
    if model.prefill is None or model.decode is None:
        raise SizingError("the profile lacks a phase: both are needed")
    context = targets.isl + targets.osl / 2
    ttft_ms = model.prefill.ttft_ms(targets.isl)
    most = model.decode.batch_limit(context)
    within = (targets.itl_ms - model.decode.a_ms) / max(1e-9, model.decode.per_sequence_ms(context))
    in_flight = max(1, math.floor(min(most, within) + 1e-9))
    itl_ms = model.decode.itl_ms(in_flight, context)
    prefill_rate, decode_rate = 1000.0 / ttft_ms, in_flight * 1000.0 / (targets.osl * itl_ms)
    wanted = request.load.requests_per_s
    if request.load.concurrency is not None:
        # Little's law: these are in flight for as long as a request takes.
        wanted = request.load.concurrency * 1000.0 / (ttft_ms + targets.osl * itl_ms)
    prefill = PoolSizing(profile.prefill_gpus, prefill_rate, _replicas(wanted, prefill_rate))
    decode = PoolSizing(profile.decode_gpus, decode_rate, _replicas(wanted, decode_rate))
    prefill, decode = _within_gpus(prefill, decode, request.hardware.total_gpus)
    if (budget_watts := budget_of(request)) is not None:
        curves = _curves(profile, request)
        prefill, decode = _capped(prefill, decode, curves, request, budget_watts)
    unmet = []
    if ttft_ms > targets.ttft_ms:
        unmet.append(f"TTFT is {ttft_ms:.1f} ms for {targets.isl} tokens, and the target is {targets.ttft_ms:g} ms")
    if itl_ms > targets.itl_ms:
        unmet.append(f"ITL is {itl_ms:.1f} ms for one request, and the target is {targets.itl_ms:g} ms")
    return DeploymentSizing(prefill, decode, ttft_ms, itl_ms, in_flight, tuple(unmet))


def budget_of(request: PowerRequest) -> float | None:
    """Watts of all its GPUs: our own key, or that of Dynamo's planner; None: no budget."""
    if request.power is not None and request.power.budget_watts is not None:
        return request.power.budget_watts
    value = planner_value(request.planner or {}, "total_gpu_power_limit")
    return None if value is None else float(value)


def planner_value(planner: Mapping[str, Any], name: str) -> Any:
    """A setting of Dynamo's planner by its snake_case name, however the request writes it; None where it is absent."""
    return next((value for key, value in planner.items() if planner_name(key) == name), None)


def planner_name(key: str) -> str:
    """The snake_case name of a planner's setting: ``plannerMinEndpoint`` is ``min_endpoint``."""
    plain = "".join(f"_{each.lower()}" if each.isupper() else each for each in key.replace("-", "_"))
    return plain.removeprefix("planner_")


def gpu_name(request: PowerRequest) -> str:
    """The short name of the GPU type, ``h200`` for ``h200_sxm``; where none is given, h200."""
    system = request.offline.system if request.offline is not None else None
    return (request.hardware.gpu_type or system or DEFAULT_GPU).split("_")[0]


def highest_limit_watts(request: PowerRequest) -> int | None:
    """The highest power limit of a GPU of the request's type; None where the type or its limits are not known."""
    if request.hardware.gpu_type is None and (request.offline is None or request.offline.system is None):
        return None
    try:
        return math.floor(gpu(gpu_name(request)).tdp_watts)
    except KeyError:
        return None


def _replicas(wanted_per_s: float | None, rate_per_s: float) -> int:
    return 1 if wanted_per_s is None else max(1, math.ceil(wanted_per_s / rate_per_s - 1e-9))


def _within_gpus(prefill: PoolSizing, decode: PoolSizing, total: int | None) -> tuple[PoolSizing, PoolSizing]:
    """Fewer replicas where the GPUs do not suffice. Raises SizingError where they do not for one each."""
    if total is None:
        return prefill, decode
    if prefill.gpus + decode.gpus > total:
        raise SizingError(f"one engine of each phase needs {prefill.gpus + decode.gpus} GPUs; totalGpus is {total}")
    return _fewer(prefill, decode, (prefill.gpus, decode.gpus), total)


def _fewer(
    prefill: PoolSizing, decode: PoolSizing, each: tuple[float, float], limit: float
) -> tuple[PoolSizing, PoolSizing]:
    """At most so many replicas that their sum of ``each`` is within ``limit``; the one with more to spare shrinks."""
    counts = [prefill.replicas, decode.replicas]
    while counts[0] * each[0] + counts[1] * each[1] > limit and max(counts) > 1:
        counts[0 if counts[0] >= counts[1] else 1] -= 1
    return replace(prefill, replicas=counts[0]), replace(decode, replicas=counts[1])


def _capped(
    prefill: PoolSizing,
    decode: PoolSizing,
    curves: Sequence[PowerCurve],
    request: PowerRequest,
    budget_watts: float,
) -> tuple[PoolSizing, PoolSizing]:
    """Limits by the objective, and no more replicas than the budget carries with them; lower limits before none.

    ``curves``: prefill's and decode's.
    """
    objective = request.power.objective if request.power is not None else "throughput"
    caps = [_cap_watts(one, objective) for one in curves]
    least = [math.ceil(watts_from_mw(_least_mw(one))) for one in curves]
    one_each = prefill.gpus * least[0] + decode.gpus * least[1]
    if one_each > budget_watts:
        raise SizingError(
            f"one engine of each phase needs {one_each} W at the lowest useful limits; the budget is {budget_watts:g} W"
        )
    wanted = prefill.gpus * caps[0] + decode.gpus * caps[1]
    if wanted > budget_watts:
        share = (budget_watts - one_each) / (wanted - one_each)
        caps = [low + math.floor((cap - low) * share) for cap, low in zip(caps, least, strict=True)]
    prefill, decode = _fewer(prefill, decode, (prefill.gpus * caps[0], decode.gpus * caps[1]), budget_watts)
    return replace(prefill, cap_watts=caps[0]), replace(decode, cap_watts=caps[1])


def _least_mw(known: PowerCurve) -> int:
    return min(known.useful_mw, known.max_mw)


def _cap_watts(known: PowerCurve, objective: Objective) -> int:
    """The limit by the curve: the most work per watt, or all the speed that there is."""
    if objective != "goodput_per_watt":
        return math.floor(watts_from_mw(known.max_mw))
    caps = range(_least_mw(known), known.max_mw + 1, CAP_STEP_MW)
    return round(watts_from_mw(max(caps, key=lambda cap: fitted_speed(known, cap) / min(cap, known.p_u_mw))))


def _curves(profile: Profile, request: PowerRequest) -> tuple[PowerCurve, PowerCurve]:
    """Prefill's and decode's: the profile's measured ones, else the published ones of the GPU type."""
    name = gpu_name(request)
    return (
        profile.prefill_curve or _published(name, Role.PREFILL),
        profile.decode_curve or _published(name, Role.DECODE),
    )


def _published(name: str, role: Role) -> PowerCurve:
    try:
        return curve(gpu(name), phase_of(role))
    except KeyError as error:
        raise SizingError(f"a power budget needs a known GPU type: {error.args[0]}") from None
