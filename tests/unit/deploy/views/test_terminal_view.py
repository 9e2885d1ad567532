"""The live view fits every terminal, and what matters first is on it."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from bus_schemas import v1
from deploy.demo.show import ScalingLog
from deploy.views.live_view import DemoStatus
from deploy.views.site_view import SiteView
from deploy.views.terminal_view import panel
from deploy.views.words import amount
from tests.unit.deploy.views.test_site_view import NOW, record, scaled, scaling, telemetry

REASON = "5 decode replicas hold the sequences of 8.26 requests/s of 1217/85 tokens in their KV caches"
RUN = DemoStatus(
    "wattscale up: 4 nodes, h200, 15680 W, bus nats://127.0.0.1:32953",
    "from outside: nats sub 'wattscale.v1.>' -s nats://127.0.0.1:32953   or   wattscale status",
    221.0,
    11.0,
    ("node-3: silent for 20 s",),
)
RED = "\x1b[1;31m"


def power(decision_id: int) -> v1.PowerDecision:
    return v1.PowerDecision(
        time=NOW + timedelta(seconds=decision_id),
        site="row",
        node="n",
        decision_id=decision_id,
        incarnation="i",
        epoch=1,
        caps=(v1.GpuCap(gpu="g0", cap_watts=400, fallback_watts=200),),
        valid_for_s=30,
    )


def busy() -> SiteView:
    """A site with a missed target, one scaling decision long ago, and power decisions ever since."""
    picture = SiteView()
    reasons = (v1.Reason(code="kv", text=REASON),)
    wanted = scaling(1, 2, 5).model_copy(update={"reasons": reasons})
    for message in (wanted, scaled(1, 1), record(observed=observed(900.0)), telemetry(NOW, (300, 400))):
        picture.add(message)
    for number in range(300):
        picture.add(power(number))
    return picture


def observed(ttft_ms: float) -> dict[str, float]:
    return {"requests": 90.0, "interval_s": 10.0, "ttft_ms": ttft_ms, "isl_tokens": 1000.0, "osl_tokens": 200.0}


def rows(picture: SiteView, width: int, height: int, run: DemoStatus = RUN) -> list[str]:
    out = io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True, color_system="standard")
    console.print(panel(picture, run, width, height))
    return out.getvalue().splitlines()


def test_at_80_by_24_what_matters_is_there() -> None:
    found = rows(busy(), 80, 24)
    text = "\n".join(found)
    assert len(found) == 24
    assert RED in next(row for row in found if "TTFT 900 / 500 ms" in row)
    assert any(RED in row and "node-3: silent" in row for row in found)
    assert "400 capped, 1000 budget" in text
    assert "wattscale status" in text
    for word in REASON.split():
        assert word in text
    assert "(carried" in text
    assert "power #299" in text
    assert "scaling #1" in text


def test_a_kept_target_is_green_and_a_tight_budget_yellow() -> None:
    picture = busy()
    picture.add(record(observed=observed(100.0)))
    picture.add(telemetry(NOW + timedelta(seconds=9), (970, 980)))
    found = rows(picture, 80, 24)
    assert "\x1b[32m" in next(row for row in found if "TTFT 100" in row)
    assert "\x1b[33m" in next(row for row in found if "970 drawn" in row)


def test_caps_above_the_budget_are_red() -> None:
    picture = busy()
    picture.add(telemetry(NOW + timedelta(seconds=9), (300, 1100)))
    assert RED in next(row for row in rows(picture, 80, 24) if "1100 capped" in row)


def test_a_wide_terminal_shows_replicas_beside_power_and_is_used() -> None:
    found = rows(busy(), 200, 50)
    assert len(found) == 50
    side_by_side = [row for row in found if "scaling #1" in row and "power #" in row]
    assert side_by_side
    assert sum("power #" in row for row in found) > 30
    assert "ISL 1000" in "\n".join(found)


@pytest.mark.parametrize(("width", "height"), [(40, 10), (80, 24), (80, 12), (200, 50), (132, 43), (20, 5)])
@pytest.mark.parametrize("picture", [busy(), SiteView()], ids=["busy", "empty"])
def test_it_fits(picture: SiteView, width: int, height: int) -> None:
    console = Console(width=width, height=height)
    lines = console.render_lines(panel(picture, RUN, width, height), pad=False)
    assert len(lines) <= height
    assert all(sum(segment.cell_length for segment in line) <= width for line in lines)


def test_a_low_terminal_keeps_the_deployment_and_the_watts() -> None:
    text = "\n".join(rows(busy(), 60, 8))
    assert "TTFT 900" in text
    assert "1000 budget" in text


@pytest.mark.parametrize(("value", "text"), [(37512.4, "37512"), (163.4, "163.4"), (0.12344, "0.1234")])
def test_figures_have_no_exponent(value: float, text: str) -> None:
    assert amount(value) == text


def ids(messages: list[Any]) -> list[tuple[str, int]]:
    return [("decision" if isinstance(one, v1.ScalingDecision) else "answer", one.decision_id) for one in messages]


def test_an_answer_is_shown_after_its_decision_whatever_arrived_first() -> None:
    log, picture = ScalingLog(), SiteView()
    picture.add(scaled(7, 7))
    assert log.new(picture.scaling) == []
    for number in range(300):
        picture.add(power(number))
    picture.add(scaling(7, 2, 2))
    assert ids(log.new(picture.scaling)) == [("decision", 7), ("answer", 7)]
    picture.add(scaling(8, 2, 3))
    picture.add(scaled(8, 8))
    assert ids(log.new(picture.scaling)) == [("decision", 8), ("answer", 8)]
    assert log.new(picture.scaling) == []
