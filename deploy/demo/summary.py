"""The results of a run: one value, printed as JSON or as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploy.demo.gpus import HardwareMeter
from deploy.demo.prepare import Prepared
from deploy.views.site_view import SiteView

JOULES_PER_KWH = 3.6e6


FIGURES = ("requests", "good_requests", "gpu_hours", "energy_joules", "joules_per_output_token")
MEASURED = ("failed_requests", "in_flight_requests", "ttft_ms", "itl_ms")
"""Only where real requests are answered."""


def summary_of(run: Prepared, total: Mapping[str, Any], meter: HardwareMeter, picture: SiteView) -> dict[str, Any]:
    """Requests and energy from ``total``, decisions and acknowledgements from the bus, caps from the hardware."""
    measured = MEASURED if run.options.real_workers else ()
    return {
        **{name: total[name] for name in (*FIGURES, *measured)},
        "decisions": picture.decisions,
        "acks": picture.acks,
        "scaling": {
            name: {"decision_id": view.decision_id, "scaled_decision_id": view.scaled_decision_id}
            for name, view in picture.deployments.items()
        },
        "budget_watts": round(run.budget_watts, 3),
        "max_sum_of_caps_watts": meter.largest_mw / 1000,
        "load_seconds": total["load_seconds"],
    }


def as_text(summary: dict[str, Any]) -> str:
    """The summary as text."""
    requests, good = summary["requests"], summary["good_requests"]
    share = f" ({good / requests:.1%})" if requests else ""
    lines = [
        f"requests      {requests}, within both targets {good}{share}, in {summary['load_seconds']:.0f} s of load",
        f"GPU-hours     {summary['gpu_hours']:.2f}",
        f"energy        {summary['energy_joules'] / 1000:.0f} kJ ({summary['energy_joules'] / JOULES_PER_KWH:.3g} kWh)",
    ]
    if summary["joules_per_output_token"] is not None:
        lines[-1] += f", {summary['joules_per_output_token']:.2f} J per output token"
    for reason, count in summary.get("failed_requests", {}).items():
        lines.append(f"failed        {count}: {reason}")
    for name, key in (("TTFT", "ttft_ms"), ("ITL", "itl_ms")):
        if summary.get(key):
            lines.append(f"{name:<13} " + ", ".join(f"{part} {ms:.1f}" for part, ms in summary[key].items()) + " ms")
    lines.append(f"decisions     {summary['decisions']}, acknowledgements {summary['acks']}")
    for name, ids in summary["scaling"].items():
        carried_out = f"decision #{ids['decision_id']}, carried out up to #{ids['scaled_decision_id']}"
        lines.append(
            f"{name}: {carried_out if ids['decision_id'] >= 0 else 'no scaling was needed, or none was due yet'}"
        )
    lines.append(
        f"caps          at most {summary['max_sum_of_caps_watts']:.0f} W in sum, budget {summary['budget_watts']:.0f} W"
    )
    return "\n".join(lines)
