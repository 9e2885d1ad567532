"""The share of requests that a pool is predicted to make good, from the speed it has and the speed it needs.

Owns the two slopes. A queue of prompts degrades gently: a little too slow makes a few late. Decode is a cliff: all
sequences share one iteration time, so that nearly all answers miss their target together. A rule that weighs both alike
takes watts from decode, because prefill cannot carry more anyway, and makes every request late.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from planner.domain.demand import AT_NEED
from planner.domain.pool import Role

Floats = NDArray[np.float64]

SPREAD: Mapping[Role, float] = MappingProxyType({Role.PREFILL: 0.20, Role.DECODE: 0.06})
"""One standard deviation of ``ln(speed)`` by phase, measured as the slope of the share of requests in time against a
fixed cap: 0.20 for prompts of a 70B engine on H100 and of a 32B engine on H200, 0.055 for answers."""
ANSWERS_MARGIN = math.exp(AT_NEED * SPREAD[Role.DECODE])
"""The speed that answers need, as a multiple of the speed at which half of them are late."""
PHASES: Mapping[Role, tuple[Role, ...]] = MappingProxyType(
    {Role.PREFILL: (Role.PREFILL,), Role.DECODE: (Role.DECODE,), Role.AGGREGATED: (Role.PREFILL, Role.DECODE)}
)

_FAR, _STEP = 8.0, 1 / 256
_Z = np.arange(-_FAR, _FAR + _STEP, _STEP)
_PHI = np.array([0.5 * math.erfc(-z / math.sqrt(2.0)) for z in _Z])
_PHI[0], _PHI[-1] = 0.0, 1.0
_LEAST = 1e-300


def needs(
    role: Role, required: tuple[float, ...], arriving: tuple[float, ...], prompts: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """By count, the speeds that shares are predicted from: of prompts and of answers; empty for a phase not served.

    ``required``: as sized; ``prompts``: what the prompts that arrive need, where known; ``arriving``: where half of the
    answers that arrive are late, where known: their need is ``AT_NEED`` spreads above it.
    """
    answers = tuple([speed * ANSWERS_MARGIN for speed in arriving]) or required
    phases = PHASES[role]
    return (prompts or required) if Role.PREFILL in phases else (), answers if Role.DECODE in phases else ()


def share(role: Role, speed: float, need: float) -> float:
    """``Phi(AT_NEED + ln(speed / need) / SPREAD)``; 1 where nothing is needed, 0 where no speed is enough.

    Rises with speed and falls with need. An aggregated pool serves both phases with one speed: the product of both.
    """
    phases = PHASES[role]
    return good(speed, need if Role.PREFILL in phases else 0.0, need if Role.DECODE in phases else 0.0)


def good(speed: float, prompts: float, answers: float) -> float:
    """The share of requests made good where prompts and answers need these speeds; 0: that phase is not served here."""
    found = 1.0
    for need, phase in ((prompts, Role.PREFILL), (answers, Role.DECODE)):
        if need > 0.0:
            ratio = max(speed / need, _LEAST)
            found *= 0.5 * math.erfc(-(AT_NEED + math.log(ratio) / SPREAD[phase]) / math.sqrt(2.0))
    return found


def goods(speed: Floats, prompts: Floats, answers: Floats) -> Floats:
    """(P, N, S) the same for many: ``speed`` (P, 1, S), ``prompts`` and ``answers`` (P, N, 1).

    A pool serves one phase at all its counts, or both: then its second phase is a second factor.
    """
    serves_prompts = prompts.any(axis=(1, 2), keepdims=True)
    need = np.where(serves_prompts, prompts, answers)
    found = _phase(speed, need, np.where(serves_prompts, SPREAD[Role.PREFILL], SPREAD[Role.DECODE]))
    both = np.flatnonzero(serves_prompts & answers.any(axis=(1, 2), keepdims=True))
    if len(both):
        found[both] *= _phase(speed[both], answers[both], SPREAD[Role.DECODE])
    return found


def _phase(speed: Floats, need: Floats, spread: Floats | float) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = speed / need
        np.maximum(logs, _LEAST, out=logs)
        np.log(logs, out=logs)
    logs /= spread
    logs += AT_NEED
    found: Floats = np.interp(logs, _Z, _PHI)
    found[need[..., 0] <= 0.0] = 1.0
    return found
