"""A stranger's five questions on the page of a site with many deployments: each answered in one click or none.

Every text is made of the same value that `wattscale explain` prints, or `odd_gpus` and the timeline find.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from bus_schemas import v1
from deploy.dashboard.questions import MOST_LINES
from deploy.views.explain import explain, power_lines
from deploy.views.odd_gpus import odd_gpus
from deploy.views.site_view import SiteView
from deploy.views.words import sentence
from deploy.views.would_change import would_change
from tests.contract.bus import bench, leading
from tests.doubles.browser import BrowserTab, browser_page
from tests.doubles.seen_site import SITE, decision, gpu, power, put, record, report, scaled
from tests.integration.dashboard.test_browser import shown
from tests.integration.dashboard.test_page_server import served

DEPLOYMENTS = 15
NODES, ODD = 2, 14
LAST = f"chat-{DEPLOYMENTS - 1:02}"


def many(now: datetime) -> list[v1.Message]:
    """More deployments, and more odd GPUs, than an answer has lines."""
    found: list[v1.Message] = []
    for index in range(DEPLOYMENTS):
        name = {"deployment": f"chat-{index:02}"}
        made, grew = record(index, now), decision(index, 6, now, text=f"{name['deployment']} grew")
        found += [one.model_copy(update=name) for one in (grew, scaled(index, 6, now))]
        found.append(made.model_copy(update={**name, "service_class": "interactive"}))
    for node in range(NODES):
        gpus = (gpu(f"node-{node}", i, draw_watts=390.0 if i == 0 else 470.0 + i) for i in range(8))
        found += [power(f"node-{node}", 0, now), report(f"node-{node}", *gpus, at=now)]
    return found


@pytest.mark.long
async def test_a_strangers_five_questions_are_each_answered_in_one_click_or_none() -> None:
    now = datetime.now(UTC)
    messages, picture = many(now), SiteView()
    for message in messages:
        picture.add(message)
    view = picture.deployments[LAST]
    assert view.record is not None
    explained = explain(view.record, view.decision, view.ack)
    async with bench() as (_, bus), leading(bus, "planner-a", ttl_s=30.0), served(bus) as served_page:
        await put(bus, *messages)
        async with browser_page() as page:
            await page.open(served_page.url)
            # Is the budget held? No click.
            watts = next(power_lines(view.record))
            assert watts in explained
            await shown(page, "[data-answer=budget]", f"{SITE}: yes; {watts}")
            await _why_and_what_would_change_it(page, view.record, explained)
            await shown(page, "#deployments", f"{LAST} (interactive)")
            await _which_gpu_is_odd(page, [one.sentence() for one in odd_gpus(picture)])
            await _what_happened(page, now, [sentence(one) for one in messages if isinstance(one, v1.ScalingDecision)])
            assert page.problems == []


async def _why_and_what_would_change_it(page: BrowserTab, newest: v1.PlanRecord, explained: str) -> None:
    """The first deployments without a click, every other one with one: the whole text of `explain`."""
    reason, (prefill, _) = newest.pools["decode"].chain[-1], would_change(newest)
    assert f"{reason.code} -> 6: {reason.text}" in explained
    assert prefill in explained
    await shown(page, "[data-answer=why]", f"chat-00 decode: 6; {reason.code}: {reason.text}")
    await shown(page, "[data-answer=change]", f"chat-00 {prefill}")
    for answer in ("why", "change"):
        await shown(page, f"[data-answer={answer}]", f"and {2 * DEPLOYMENTS - MOST_LINES} more")
    buttons = "[...document.querySelectorAll('#deployments tbody')]"
    own = f"{buttons}.find(one => one.innerText.includes({json.dumps(LAST)})).querySelector('td button')"
    await page.evaluate(f"{own}.click()")
    text = await shown(page, "#story-text", "what would change it")
    # But for the age in the first line.
    assert text.splitlines()[1:] == explained.splitlines()[1:]
    await page.press("Escape")


async def _which_gpu_is_odd(page: BrowserTab, odd: list[str]) -> None:
    assert len(odd) == ODD
    for line in odd[:MOST_LINES]:
        await shown(page, "[data-answer=odd]", line)
    await page.evaluate("document.querySelector('#odd summary').click()")
    await shown(page, "#odd summary", f"{ODD} odd GPUs")
    assert (await shown(page, "#odd ul", odd[-1])).splitlines() == odd


async def _what_happened(page: BrowserTab, at: datetime, lines: list[str]) -> None:
    """At a time of day, in the browser's own zone, which is the machine's."""
    there = at.astimezone()
    await page.evaluate(f"document.getElementById('when-time').value = '{there:%H:%M:%S}'")
    await page.evaluate("document.querySelector('#when button').click()")
    for line in lines:
        await shown(page, "#when-lines", line)
