"""Assumptions about a GPU before any measurement: data sheets, and curves by phase as fractions of TDP.

A small table of published figures. They are priors: P_u depends on model and batch (407 to 690 W of 700 W were
measured on H100), so it is corrected online or by profiling.

Sources. Data-sheet limits: vendor data sheets (H100 SXM and H200 SXM 700 W, B200 1000 W, A100 SXM 400 W). Idle: H100
119 W and A100 70 W per GPU with a model resident (powertrace-sim operator table), B300 183 W (gpu-power-lab), H200
and B200 by their ratio of TDP to these. Prefill: bf16 GEMM sweep on B300 (gpu-power-lab). Decode dense, MoE and single
stream: cap sweeps at batch 32 and 1 (MMBT). ``min_useful`` 50 % of TDP until measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from planner.domain.pool import Role
from planner.domain.power import PowerCurve
from planner.domain.units import mw_from_watts

MIN_USEFUL_OF_TDP = 0.5


class Phase(StrEnum):
    """The kind of work that a power curve is for."""

    PREFILL = "prefill"
    DECODE_DENSE = "decode_dense"
    DECODE_MOE = "decode_moe"
    SINGLE_STREAM = "single_stream"


@dataclass(frozen=True, slots=True)
class GpuType:
    """A data sheet: TDP, lowest limit the driver takes, and idle draw with a model resident, in watts."""

    name: str
    tdp_watts: float
    min_watts: float
    idle_watts: float


_TYPES = {
    "a100": GpuType("a100", 400, 100, 70),
    "h100": GpuType("h100", 700, 200, 119),
    "h200": GpuType("h200", 700, 200, 119),
    "b200": GpuType("b200", 1000, 200, 170),
    "b300": GpuType("b300", 1100, 200, 183),
}

_CURVES = {
    Phase.PREFILL: (0.20, 0.88, 0.60),
    Phase.DECODE_DENSE: (0.395, 0.73, 0.257),
    Phase.DECODE_MOE: (0.45, 0.79, 0.106),
    Phase.SINGLE_STREAM: (0.47, 0.70, 0.07),
}
"""(P_s, P_u, alpha), the powers as fractions of TDP."""


def gpu(name: str) -> GpuType:
    """The data sheet of a GPU type by its short name. Raises KeyError, listing the known names."""
    try:
        return _TYPES[name.lower()]
    except KeyError:
        raise KeyError(f"no figures for GPU type {name!r}; known: {', '.join(_TYPES)}") from None


def phase_of(role: Role, *, moe: bool = False) -> Phase:
    """The phase whose curve to use for a role. Aggregated workers mix both: the steeper curve (prefill) is safe."""
    if role is Role.DECODE:
        return Phase.DECODE_MOE if moe else Phase.DECODE_DENSE
    return Phase.PREFILL


def curve(gpu_type: GpuType, phase: Phase) -> PowerCurve:
    """The prior of one GPU type in one phase."""
    p_s, p_u, alpha = _CURVES[phase]
    tdp = gpu_type.tdp_watts
    return PowerCurve(
        p_s_mw=mw_from_watts(p_s * tdp),
        p_u_mw=mw_from_watts(p_u * tdp),
        alpha=alpha,
        idle_mw=mw_from_watts(gpu_type.idle_watts),
        min_mw=mw_from_watts(gpu_type.min_watts),
        max_mw=mw_from_watts(tdp),
        useful_mw=mw_from_watts(MIN_USEFUL_OF_TDP * tdp),
    )
