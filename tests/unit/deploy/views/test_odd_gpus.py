"""Which GPUs are odd: each kind of oddness by its own reason, and a fleet of equals has none."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas import v1
from deploy.views.odd_gpus import odd_gpus
from deploy.views.site_view import SiteView
from tests.doubles.seen_site import gpu, report


def view(**changes: Any) -> SiteView:
    """Eight equal GPUs, of which the third is as ``changes`` say."""
    gpus = (gpu("n", index, **(changes if index == 2 else {})) for index in range(8))
    picture = SiteView()
    picture.add(report("n", *gpus))
    return picture


def test_equal_gpus_are_not_odd() -> None:
    assert odd_gpus(view()) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"health": v1.GpuHealth.QUARANTINED, "error": "XID 79"}, "quarantined (XID 79)"),
        ({"draw_watts": None}, "its draw is not known"),
        ({"draw_watts": 470.0}, "draws 470 W, above its cap of 400 W"),
        ({"enforced_watts": 500.0}, "its cap of 500 W is above the 400 W that it was granted"),
        ({"throttle_reasons": ("sw_power_cap", "hw_thermal_slowdown")}, "slowed by hw_thermal_slowdown"),
        ({"draw_watts": 90.0}, "draws 90 W, where GPUs of decode at its cap draw 390 W"),
    ],
)
def test_each_kind_of_oddness_has_its_reason(changes: dict[str, Any], why: str) -> None:
    (odd,) = odd_gpus(view(**changes))
    assert odd.why == why
    assert odd.sentence() == f"n GPU 2: {why}"


@pytest.mark.parametrize(
    "changes",
    [
        {"draw_watts": 415.0},
        {"throttle_reasons": ("sw_power_cap", "gpu_idle")},
        {"draw_watts": 90.0, "terminating": True},
        {"draw_watts": 90.0, "pool": "", "deployment": ""},
        {"draw_watts": 250.0},
    ],
)
def test_what_is_ordinary_is_not_odd(changes: dict[str, Any]) -> None:
    assert odd_gpus(view(**changes)) == []


def test_several_reasons_stand_in_one_line() -> None:
    (odd,) = odd_gpus(view(health=v1.GpuHealth.UNKNOWN, draw_watts=500.0))
    assert odd.why == "unknown; draws 500 W, above its cap of 400 W"
