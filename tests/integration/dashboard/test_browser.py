"""The page in a real browser: it loads, lives, answers, explains, survives outages and says so, and is accessible.

With WATTSCALE_WRITE_SCREENSHOT set, the picture of the README is made anew beside this file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from bus_schemas import codec, v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.publisher import publish
from deploy.nats.embedded import EmbeddedServer
from deploy.views.explain import power_lines
from deploy.views.words import sentence
from deploy.views.would_change import would_change
from tests.contract.bus import bench, connected, leading, until
from tests.doubles.browser import BrowserTab, browser_page
from tests.doubles.seen_site import CHAT, SITE, decision, gpu, power, put, record, report, scaled
from tests.free_ports import free_port
from tests.integration.dashboard.test_page_server import served
from tests.integration.planner.stage import NAME, staged
from tests.integration.planner.test_commands import planner_process, settings
from tests.npm_parts import npm_folder

HERE = Path(__file__).parent
ZONE, HOURS_AHEAD = "Asia/Tokyo", 9
NODES = 3
AXE = """axe.run(document, {resultTypes: ["violations"]}).then(found => found.violations.map(
    one => [one.id, one.help, one.nodes.map(node => node.html.slice(0, 120))]))"""


def past(now: datetime, ticks: int = 60) -> list[v1.Message]:
    """An hour of load that rises and falls, and the decisions that followed it."""
    found: list[v1.Message] = []
    for index in range(ticks):
        at = now - timedelta(seconds=60 * (ticks - 1 - index))
        load = 10 + 5 * math.sin(index / 9)
        mean = 10 + 5 * math.sin((index + 1) / 9)
        base = record(index // 10, at)
        observed = {**base.observed, "requests": load * 60, "interval_s": 60.0, "ttft_ms": 200 + 20 * load}
        ahead = v1.ForecastRecord(mean=mean, lower=mean * 0.85, upper=mean * 1.2, horizon_s=60, model="blend")
        drawn = 3000 + 220 * load
        changes = {"observed": observed, "forecasts": {"request_rate_per_s": ahead}, "draw_watts": drawn}
        found.append(base.model_copy(update=changes))
        if index % 10 == 0:
            found += [decision(index // 10, 4 + index // 20, at), scaled(index // 10, 4 + index // 20, at)]
    return found


async def shown(page: BrowserTab, selector: str, part: str) -> str:
    """The element's text once it holds ``part``."""

    async def holds() -> str:
        text = await page.text(selector)
        return text if part in text else ""

    found: str = await until(holds, f"{selector} to show {part!r}")
    return found


async def accessible(page: BrowserTab, axe: str) -> None:
    await page.evaluate(axe + ";true")
    assert await page.evaluate(AXE) == []


@pytest.mark.long
async def test_the_page_answers_explains_lives_and_survives_an_outage(tmp_path: Path) -> None:
    axe = (npm_folder(HERE / "axe") / "node_modules" / "axe-core" / "axe.min.js").read_text()
    now = datetime.now(UTC)
    async with EmbeddedServer(tmp_path) as server, connected(server.url) as bus:
        await stream_admin.apply(bus)
        messages = past(now)
        odd = gpu("node-1", 3, draw_watts=470.0)
        nodes = [power(f"node-{n}", 0) for n in range(NODES)]
        reports = [
            report(f"node-{n}", *(odd if (n, i) == (1, 3) else gpu(f"node-{n}", i) for i in range(8)))
            for n in range(NODES)
        ]
        cut = v1.BudgetChange(
            time=now, site=SITE, budget_watts=8000.0, effective_from=now + timedelta(minutes=5), ramp_s=120.0
        )
        made = decision(6, 6, now)
        await put(bus, *messages, made, *nodes, *reports, cut)
        async with leading(bus, "planner-a", ttl_s=30.0), served(bus) as served_page, browser_page() as page:
            await page.call("Emulation.setTimezoneOverride", timezoneId=ZONE)
            await page.size(1280, 2450)
            await page.open(served_page.url)
            await shown(page, "#leader", "planner-a")
            await _answers(page, next(one for one in reversed(messages) if isinstance(one, v1.PlanRecord)), odd)
            await _happened(page, made)
            await until(lambda: _charted(page), "the charts to be drawn")
            drawn = [one.draw_watts or 0.0 for one in messages if isinstance(one, v1.PlanRecord)]
            # A command is stated in UTC on the bus, and here in the viewer's zone.
            begins = (now + timedelta(minutes=5)).astimezone(ZoneInfo(ZONE))
            await shown(page, "#sites", f"{begins:%H:%M:%S}, over a ramp of 120 s: begins later")
            assert "UTC" not in await page.text("#sites")
            for name in ("target", "announced budget", "decode desired"):
                one = f"(line) => line.textContent === '{name}'"
                await until(partial(page.evaluate, f"[...document.querySelectorAll('.dashed')].some({one})"), name)
            # Each reading until the next, a minute later.
            await shown(page, "#energy", f"{sum(drawn[:-1]) / 60_000:.2f} kWh drawn")
            if os.environ.get("WATTSCALE_WRITE_SCREENSHOT"):
                await shown(page, "#agents", "node-2")
                await page.as_high_as_its_page(1400)
                (HERE / "page.png").write_bytes(await page.screenshot())
            await accessible(page, axe)
            await _read_and_zoomed(page, messages)
            await page.media("dark")
            await accessible(page, axe)
            await _live_and_explained_by_keyboard(page, bus)
            await _fleet_by_keyboard(page)
            await page.size(390, 800)
            # The fleet is laid out again when the browser has told its new width.
            await until(partial(page.evaluate, "document.documentElement.scrollWidth === 390"), "a page of that width")
            await accessible(page, axe)
            await server.stop()
            await shown(page, "#connection", "the bus cannot be reached since")
            # What was known stays.
            assert CHAT in await page.text("#deployments")
            await server.start()
            async with connected(server.url, "other") as other:
                await stream_admin.apply(other)
                await put(other, decision(9, 9))
            await shown(page, "#timeline", "scaling #9: prefill=2 decode=9")
            assert await shown(page, "#connection", "live")
            assert page.problems == []


async def _answers(page: BrowserTab, newest: v1.PlanRecord, odd: v1.GpuTelemetry) -> None:
    """Four questions are answered without a click, in the words of `explain`."""
    await shown(page, "[data-answer=budget]", f"{SITE}: yes; {next(power_lines(newest))}")
    reason = newest.pools["decode"].chain[-1]
    await shown(page, "[data-answer=why]", f"{CHAT} decode: 6; {reason.code}: {reason.text}")
    for line in would_change(newest):
        await shown(page, "[data-answer=change]", f"{CHAT} {line}")
    await shown(page, "[data-answer=odd]", f"node-1 GPU {odd.index}: draws 470 W, above its cap of 400 W")


async def _happened(page: BrowserTab, made: v1.ScalingDecision) -> None:
    """The fifth by a time of day in the viewer's own zone, and one click."""
    there = made.time.astimezone(timezone(timedelta(hours=HOURS_AHEAD)))
    await page.evaluate(f"document.getElementById('when-time').value = '{there:%H:%M:%S}'")
    await page.evaluate("document.querySelector('#when button').click()")
    text = await shown(page, "#when-lines", sentence(made))
    assert f"{there:%H:%M:%S}" in text


async def _charted(page: BrowserTab) -> bool:
    labels = await page.evaluate("[...document.querySelectorAll('figure canvas')].map(one => one.ariaLabel)")
    return len(labels) == 6 and not any("nothing yet" in label for label in labels)


def digits(value: float) -> str:
    """As a chart states it: four digits are sent, and two places shown."""
    return f"{float(f'{value:.4g}'):.2f}".rstrip("0").rstrip(".")


async def _read_and_zoomed(page: BrowserTab, messages: Sequence[v1.Message]) -> None:
    """A value is read where the cursor is, and nowhere else; a period is chosen by keys, by the mouse and by name."""
    records = [one for one in messages if isinstance(one, v1.PlanRecord)]
    watts, load = "[data-chart=watts]", "[data-chart=load]"
    readout = "p[aria-live]"
    await page.evaluate(f"document.querySelector('{load} canvas').focus()")
    for key in ("End", "ArrowLeft"):
        await page.press(key)
    text = await shown(page, f"{load} {readout}", f"load {digits(records[-1].observed['requests'] / 60)} requests/s")
    band = records[-2].forecasts["request_rate_per_s"]
    assert f"forecast band {digits(band.lower)} to {digits(band.upper)} requests/s" in text
    # At the chart's end the budget that is announced is all there is: what is drawn then is not known.
    await page.evaluate(f"document.querySelector('{watts} canvas').focus()")
    await page.press("End")
    text = await shown(page, f"{watts} {readout}", "announced budget 8,000 W")
    assert "drawn" not in text

    period = "(document.querySelector('#period').selectedOptions[0].textContent)"
    await page.press("+")
    assert " to " in await page.evaluate(period)
    await page.press("0")
    assert await page.evaluate(period) == "all that is known"
    box = await page.evaluate(
        f"(({{x, y, width}}) => [x, y, width])(document.querySelector('{watts} canvas').getBoundingClientRect())"
    )
    x, y, width = box
    await page.drag((x + width * 0.3, y + 60), (x + width * 0.5, y + 60))
    assert " to " in await page.evaluate(period)
    # The same period in every chart.
    await page.evaluate(f"document.querySelector('{load} canvas').focus()")
    await page.press("End")
    read = await page.text(f"{load} {readout}")
    assert read
    assert read[:8] <= (await page.evaluate(period))[-8:]
    await page.evaluate("document.querySelector('#period').value = '15'")
    await page.evaluate("document.querySelector('#period').dispatchEvent(new Event('change'))")
    await page.press("0")
    assert await page.evaluate(period) == "all that is known"


async def _live_and_explained_by_keyboard(page: BrowserTab, bus: Bus) -> None:
    await put(bus, decision(7, 7, text="a spike"), record(7), scaled(7, 7))
    await shown(page, "#timeline", "scaling #7: prefill=2 decode=7; a spike")
    await page.evaluate(
        "[...document.querySelectorAll('#timeline button')].find(one => one.textContent.includes('a spike')).focus()"
    )
    await page.press("Enter")
    text = await shown(page, "#story-text", "decision #7")
    assert "acknowledged: #7 applied" in text
    assert "power_budget -> 6: 10000 W are all that GPUs may draw" in text
    await page.press("Escape")
    await until(lambda: page.evaluate("!document.getElementById('story').open"), "the dialog to close")


async def _fleet_by_keyboard(page: BrowserTab) -> None:
    await page.evaluate("document.getElementById('fleet').focus()")
    for _ in range(12):
        await page.press("ArrowRight")
    text = await shown(page, "#gpu", "node-1 GPU 3")
    assert "470 W of 400 W" in text
    assert "odd: draws 470 W" in text
    label = json.dumps(await page.evaluate("document.getElementById('fleet').ariaLabel"))
    assert f"{8 * NODES} GPUs" in label


@pytest.mark.long
async def test_a_deployment_without_a_record_gets_the_watts_of_its_site_with_the_first_one() -> None:
    async with bench() as (_, bus), leading(bus, "planner-a", ttl_s=30.0), served(bus) as served_page:
        await put(bus, decision(1, 6))
        async with browser_page() as page:
            await page.open(served_page.url)
            await shown(page, "#chosen", CHAT)
            await shown(page, "#leader", "planner-a")
            watts = "document.querySelector('[data-chart=watts] canvas').ariaLabel"
            assert "nothing yet" in await page.evaluate(watts)
            for _ in range(2):
                await put(bus, record(1))
            await until(lambda: page.evaluate(f"{watts}.includes('drawn')"), "the watts of the site")


@pytest.mark.long
async def test_the_page_of_a_planner_survives_its_restart_and_states_it(tmp_path: Path) -> None:
    port = free_port()
    async with staged(tmp_path) as stage, browser_page() as page:
        stage.load_rps = 20.0
        file = settings(tmp_path, stage, dashboard={"port": port})
        async with planner_process(file):
            await until(lambda: stage.fleet.scaling, "a decision of the first process")
            await page.open(f"http://127.0.0.1:{port}/")
            await shown(page, "#deployments", str(NAME))
            await shown(page, "#connection", "live")
        await shown(page, "#connection", "no connection to the dashboard since")
        assert str(NAME) in await page.text("#deployments")
        async with planner_process(file):
            await shown(page, "#connection", "live")
            before = await page.evaluate("document.getElementById('leader').textContent")
            assert before
            # A pin needs a decision whatever the load is.
            last = max(stage.fleet.scaling, key=lambda one: one.decision_id)
            others = {pool: 1 if target.replicas > 1 else 2 for pool, target in last.pools.items()}
            pin = v1.DeploymentControl(time=datetime.now(UTC), deployment=str(NAME), action="pin", replicas=others)
            await publish(stage.bus, stage.bus.subjects.control_deployment(str(NAME)), pin, "pin-of-the-test")
            number = last.decision_id
            await until(lambda: stage.fleet.scaling[-1].decision_id > number, "a decision of the second process", 120)
            await shown(page, "#timeline", f"scaling #{stage.fleet.scaling[-1].decision_id}")


@pytest.mark.long
async def test_ten_thousand_gpus_are_shown_and_move_by_changes(tmp_path: Path) -> None:
    nodes, fleet = 1250, 10_000
    async with EmbeddedServer(tmp_path) as server, connected(server.url) as bus:
        await stream_admin.apply(bus)
        base = codec.encode(report("node-0"))
        for index in range(nodes):
            body = base.replace(b"node-0", f"node-{index}".encode())
            await bus.nc.publish(bus.subjects.telemetry_node(f"node-{index}"), body)
        await bus.nc.flush()
        async with served(bus) as served_page, browser_page() as page:
            await page.size(1280, 900)
            await page.open(served_page.url)
            label = "(document.getElementById('fleet')?.ariaLabel ?? '')"
            await until(lambda: page.evaluate(f"{label}.startsWith('{fleet} GPUs draw 3,900,000 W')"), "all GPUs")
            await put(bus, report("node-7", *(gpu("node-7", i, draw_watts=290.0) for i in range(8))))
            await until(lambda: page.evaluate(f"{label}.startsWith('{fleet} GPUs draw 3,899,200 W')"), "the change")
            await page.evaluate("document.getElementById('fleet').focus()")
            await page.press("End")
            await shown(page, "#gpu", "node-1249 GPU 7")
            assert page.problems == []
