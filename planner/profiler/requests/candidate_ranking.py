"""The candidates of one of Dynamo's searches (v1beta2), ranked by goodput per watt. Pure.

Dynamo's objectives know no watts. Its replay gives the goodput of each candidate and the GPUs that it held on average;
a GPU's draw under load is that of the published curve of its type and phase, at most its limit (the annotation
``dynamo.nvidia.com/gpu-power-limit``, else what its data sheet allows). The replay knows no limits, so that under one
the goodput counts at the speed of the slowest pool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.adapters.power_priors import GpuType, curve, gpu, phase_of
from planner.core.power.curve import speed
from planner.domain.pool import Role
from planner.domain.units import mw_from_watts, watts_from_mw
from planner.profiler.requests.generated.graph_components import POWER_ANNOTATION
from planner.profiler.requests.generated.graph_deployment import GPU_RESOURCE

GOODPUT = "goodput_output_throughput_tok_s"
MS_PER_HOUR = 3.6e6


class CandidateError(ValueError):
    """A candidate, or a search, that cannot be ranked. The message is one line."""


@dataclass(frozen=True, slots=True)
class RankedCandidate:
    """``before``: its place in Dynamo's order, None: it has none. ``gpus``: on average. Goodput in tokens/s."""

    name: str
    before: int | None
    goodput: float
    gpus: float
    watts: float

    @property
    def tokens_per_joule(self) -> float:
        """Tokens of answers within the targets, for each joule of the GPUs."""
        return self.goodput / self.watts


@dataclass(frozen=True, slots=True)
class CandidateRanking:
    """The best first; ``left_out``: why others could not be ranked, by name."""

    ranked: tuple[RankedCandidate, ...]
    left_out: Mapping[str, str]

    def to_dict(self) -> dict[str, Any]:
        """What is written down."""
        return {
            "objective": "goodput_per_watt",
            "candidates": [
                {
                    "rank": number,
                    "name": one.name,
                    "dynamoRank": one.before,
                    "goodputTokensPerSecond": round(one.goodput, 3),
                    "gpus": round(one.gpus, 3),
                    "watts": round(one.watts, 1),
                    "tokensPerJoule": round(one.tokens_per_joule, 6),
                }
                for number, one in enumerate(self.ranked, 1)
            ],
            "leftOut": dict(self.left_out),
        }


def rank_candidates(run: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]]) -> CandidateRanking:
    """The ranking of a run's candidates, as objects of the cluster. Raises CandidateError for a GPU type not known."""
    kind = _gpu_type(run)
    order = [str(one.get("name")) for one in _part(run, "status").get("candidateRefs") or ()]
    ranked, left_out = list[RankedCandidate](), dict[str, str]()
    for one in candidates:
        name = str(one["metadata"]["name"])
        place = _part(one, "status").get("rank") or (order.index(name) + 1 if name in order else None)
        try:
            ranked.append(_ranked(name, place, one, kind))
        except CandidateError as error:
            left_out[name] = str(error)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            left_out[name] = f"it cannot be read: {error!r}"
    ranked.sort(key=lambda each: (-each.tokens_per_joule, each.name))
    return CandidateRanking(tuple(ranked), dict(sorted(left_out.items())))


def _gpu_type(run: Mapping[str, Any]) -> GpuType:
    sku = _part(_part(_part(run, "spec"), "hardware"), "gpu").get("sku")
    try:
        return gpu(str(sku).split("_")[0])
    except KeyError as error:
        raise CandidateError(f"spec.hardware.gpu.sku: {error.args[0]}") from None


def _ranked(name: str, place: int | None, candidate: Mapping[str, Any], kind: GpuType) -> RankedCandidate:
    status = _part(candidate, "status")
    metrics = status.get("metrics") or _part(status, "experimental").get("metrics") or {}
    goodput = metrics.get(GOODPUT)
    if goodput is None:
        raise CandidateError("it states no goodput: its search has no SLA, or it was not evaluated")
    pools = _pools(candidate["spec"].get("components") or ())
    provisioned = sum(gpus for _, gpus, _ in pools)
    if not provisioned:
        raise CandidateError("it has no workers with GPUs")
    watts, slowest = 0.0, 1.0
    for role, gpus, limit_watts in pools:
        known = curve(kind, phase_of(role))
        limit_mw = known.max_mw if limit_watts is None else min(known.max_mw, mw_from_watts(limit_watts))
        slowest = min(slowest, speed(known, limit_mw))
        watts += gpus * watts_from_mw(min(limit_mw, known.p_u_mw))
    held = _held_gpus(metrics) or float(provisioned)
    if not (0 <= float(goodput) < 1e12 and 0 < held < 1e9):
        raise CandidateError(f"its metrics cannot be true: goodput {goodput}, {held:g} GPUs")
    return RankedCandidate(name, place, float(goodput) * slowest, held, watts * held / provisioned)


def _held_gpus(metrics: Mapping[str, Any]) -> float | None:
    """GPUs on average, as Dynamo computes them; None where the replay states none."""
    hours, duration_ms = metrics.get("gpu_hours"), metrics.get("duration_ms")
    return float(hours) / (float(duration_ms) / MS_PER_HOUR) if hours and duration_ms else None


def _pools(components: Sequence[Mapping[str, Any]]) -> list[tuple[Role, int, float | None]]:
    """Role, GPUs of all replicas and limit of each pool of workers."""
    types = [one.get("type") for one in components]
    found = []
    for one in components:
        if one.get("type") not in ("prefill", "decode", "worker"):
            continue
        role = Role.PREFILL if one["type"] == "prefill" else Role.DECODE
        if one["type"] == "worker" and "prefill" not in types:
            role = Role.AGGREGATED
        template = _part(one, "podTemplate")
        limit = (_part(template, "metadata").get("annotations") or {}).get(POWER_ANNOTATION)
        nodes = int(_part(one, "multinode").get("nodeCount", 1))
        gpus = sum(_gpus(each) for each in _part(template, "spec").get("containers") or ())
        found.append((role, int(one.get("replicas", 1)) * gpus * nodes, None if limit is None else float(limit)))
    return found


def _gpus(container: Mapping[str, Any]) -> int:
    return int((_part(container, "resources").get("limits") or {}).get(GPU_RESOURCE, 0))


def _part(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = found.get(key)
    return value if isinstance(value, Mapping) else {}
