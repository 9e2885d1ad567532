"""The results of a run: one value, printed as JSON or as text."""

from __future__ import annotations

from typing import Any

from deploy.demo.gpus import HardwareMeter
from deploy.demo.prepare import Prepared
from deploy.views.site_view import SiteView
from planner.sim.live_cluster import LiveCluster

JOULES_PER_KWH = 3.6e6


def summary_of(run: Prepared, cluster: LiveCluster, meter: HardwareMeter, picture: SiteView) -> dict[str, Any]:
    """Requests and energy from the cluster, decisions and acknowledgements from the bus, caps from the hardware."""
    options = run.options
    total = cluster.summary(options.ttft_ms, options.itl_ms)
    return {
        **{name: total[name] for name in ("requests", "good_requests", "gpu_hours", "energy_joules")},
        "joules_per_output_token": total["joules_per_output_token"],
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
