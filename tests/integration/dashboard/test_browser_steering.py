"""Steering from the page in a real browser: pin, pause and budget of a running planner, and the token for them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.jetstream.publisher import publish
from deploy.dashboard.steer_tokens import SteerTokens
from deploy.dashboard.steering import WRONG_TOKENS, Steering
from tests.contract.bus import bench, until
from tests.doubles.browser import BrowserTab, browser_page
from tests.doubles.seen_site import put, site
from tests.integration.dashboard.test_browser import HERE, accessible, shown
from tests.integration.dashboard.test_page_server import served
from tests.integration.planner.stage import DECODE, NAME, PREFILL, SITE, running, staged
from tests.npm_parts import npm_folder

TOKEN = "token-of-the-browser-0123456789"


REMOVAL = partial(v1.NodeControl, node="node-1", action="remove")


async def _is(page: BrowserTab, script: str, value: str) -> bool:
    return str(await page.evaluate(script)) == value


async def press_button(page: BrowserTab, form: str, value: str) -> None:
    await page.evaluate(f"document.querySelector('#{form} button[value={value}]').click()")


async def asked_for_the_token(page: BrowserTab) -> None:
    await until(lambda: page.evaluate("document.getElementById('token').open"), "the page to ask for the token")


async def give_token(page: BrowserTab, token: str) -> None:
    await asked_for_the_token(page)
    await page.evaluate(f"document.getElementById('token-text').value = {json.dumps(token)}")
    await page.evaluate("document.querySelector('#token-form button').click()")


async def fill(page: BrowserTab, selector: str, value: object) -> None:
    await page.evaluate(f"document.querySelector({json.dumps(selector)}).value = {json.dumps(str(value))}")


async def steer_form(page: BrowserTab, url: str) -> None:
    await page.open(url)
    await shown(page, "#steer-deployment", "decode")
    sites = "document.querySelector('#steer-budget select')?.value ?? ''"
    await until(lambda: page.evaluate(sites), "the sites")


@pytest.mark.long
async def test_a_pin_a_pause_and_a_budget_from_the_page_are_followed_by_decisions(tmp_path: Path) -> None:
    axe = (npm_folder(HERE / "axe") / "node_modules" / "axe-core" / "axe.min.js").read_text()
    async with staged(tmp_path) as stage:
        stage.load_rps = 20.0
        steering = Steering(stage.bus, SteerTokens({"anna": TOKEN}))
        async with running(stage), served(stage.bus, steering=steering) as served_page, browser_page() as page:
            await until(lambda: bool(stage.fleet.scaling), "a first decision")
            await steer_form(page, served_page.url)
            newest = stage.fleet.scaling[-1].pools
            wanted = {pool: 1 if newest[pool].replicas > 1 else 2 for pool in (PREFILL, DECODE)}
            for pool, count in wanted.items():
                await fill(page, f"#steer-pools input[data-pool={pool}]", count)
            await press_button(page, "steer-deployment", "pin")
            await give_token(page, TOKEN)
            said = await shown(page, "#steer-state", ", by anna on the dashboard")
            assert f"deployment {NAME}: pin " in said
            assert {f"{pool}={count}" for pool, count in wanted.items()} <= set(re.split("[ ,]", said))
            await shown(page, "#steer-since", f"decode {wanted[DECODE]}: pinned")
            await shown(page, "#timeline", f"prefill={wanted[PREFILL]} decode={wanted[DECODE]}")
            await shown(page, "#timeline", "by anna on the dashboard")
            await accessible(page, axe)
            await page.media("dark")
            await accessible(page, axe)
            await press_button(page, "steer-deployment", "pause")
            await shown(page, "#steer-since", "paused: ")
            await fill(page, "#steer-budget input[name=watts]", 3000)
            await press_button(page, "steer-budget", "budget-set")
            await shown(page, "#steer-state", f"budget of site {SITE}: 3000 W at once, by anna on the dashboard")
            await shown(page, "#steer-since", "budget 3000 W")
            await until(lambda: stage.fleet.power[-1].budget_watts == 3000.0, "a decision under the new budget")
            assert TOKEN not in await _everywhere(page)
            assert page.problems == []


async def _everywhere(page: BrowserTab) -> str:
    """Every address, storage, cookie, field and text of the page."""
    script = """[location.href, document.cookie, JSON.stringify({...localStorage}), JSON.stringify({...sessionStorage}),
        document.documentElement.outerHTML, ...[...document.querySelectorAll("input")].map(one => one.value),
        ...performance.getEntriesByType("resource").map(one => one.name)].join(" ")"""
    return str(await page.evaluate(script))


@pytest.mark.long
async def test_a_wrong_token_is_refused_and_then_no_token_is_compared() -> None:
    axe = (npm_folder(HERE / "axe") / "node_modules" / "axe-core" / "axe.min.js").read_text()
    async with bench() as (_, bus):
        await put(bus, *site())
        # A clock that stands: no try comes back while a slow browser makes the others.
        steering = Steering(bus, SteerTokens({"anna": TOKEN}), clock=lambda: 0.0)
        async with served(bus, steering=steering) as served_page, browser_page() as page:
            await steer_form(page, served_page.url)
            for field in ("#steer-deployment input[name=reason]", "#steer-budget input[name=watts]"):
                await page.evaluate(f"document.querySelector({json.dumps(field)}).focus()")
                await page.press("Enter")
                assert not await page.evaluate("document.getElementById('token').open"), (
                    "Enter in a field sends nothing"
                )
            await press_button(page, "steer-deployment", "pause")
            await asked_for_the_token(page)
            for scheme in ("light", "dark"):
                await page.media(scheme)
                await accessible(page, axe)
            await page.press("Escape")
            await shown(page, "#steer-state", "without a token this page is read-only")
            for number in range(WRONG_TOKENS):
                await press_button(page, "steer-deployment", "pause")
                await give_token(page, f"wrong-{number}")
                await shown(page, "#steer-state", "not done: the token is wrong")
                await press_button(page, "steer-deployment", "pause")
                await asked_for_the_token(page)
                await page.press("Escape")
                await shown(page, "#steer-state", "not sent")
            await press_button(page, "steer-deployment", "pause")
            await give_token(page, TOKEN)
            await shown(page, "#steer-state", "not done: too many wrong tokens from this address")
            await publish(bus, bus.subjects.control_node("node-1"), REMOVAL(time=datetime.now(UTC)), "removal")
            rows = "[...document.querySelectorAll('#agents tr')].map(row => row.firstChild.textContent).join()"
            await until(lambda: _is(page, rows, "node-0"), "the node that left to leave the page")
            # The console names each refusal by its status, without a token.
            assert [text for text in page.problems if "401" in text or "429" in text] == page.problems
            assert "wrong-0" not in await _everywhere(page)
