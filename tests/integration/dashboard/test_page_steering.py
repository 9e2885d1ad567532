"""Commands from the page over HTTP: who may give them, from where, how often, and what then stands on the bus."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import aiohttp
import pytest

from bus_schemas import v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.reader import last
from bus_schemas.jetstream.settings import BusSettings
from deploy.dashboard.page_server import DashboardServer
from deploy.dashboard.steer_tokens import SteerTokens
from deploy.dashboard.steering import COMMANDS, HEADER, MOST_BYTES, WRONG_TOKENS, Steering
from deploy.nats.embedded import EmbeddedServer
from deploy.nats.roles import inbox_prefix
from tests.contract.bus import bench
from tests.contract.roles.test_command_line_roles import SECRET, example
from tests.doubles.seen_site import CHAT, SITE, put, site
from tests.integration.dashboard.test_page_server import ROOT, WAIT_S, served

TOKEN = "token-of-the-test-0123456789"
PAUSE = {"action": "pause", "deployment": CHAT}
PIN = {"action": "pin", "deployment": CHAT, "replicas": {"decode": 3}}


@asynccontextmanager
async def steered(bus: Bus, **options: Any) -> AsyncIterator[DashboardServer]:
    tokens = SteerTokens({"anna": TOKEN, "otto": TOKEN[::-1]})
    async with served(bus, steering=Steering(bus, tokens, **options)) as page:
        yield page


def headers_of(page: DashboardServer, token: str = TOKEN) -> dict[str, str]:
    """As the page itself sends them."""
    return headers_at(page.url, token)


def headers_at(url: str, token: str = TOKEN) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {token}", "Content-Type": "application/json", HEADER: "1",
        "Origin": url.rstrip("/"), "Sec-Fetch-Site": "same-origin",
    }  # fmt: skip


async def asked(page: DashboardServer, command: Any, headers: dict[str, str] | None = None) -> tuple[int, str, Any]:
    return await asked_at(page.url, command, headers)


async def asked_at(url: str, command: Any, headers: dict[str, str] | None = None) -> tuple[int, str, Any]:
    body = command if isinstance(command, bytes) else json.dumps(command).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}steer", data=body, headers=headers or headers_at(url)) as answer,
    ):
        return answer.status, await answer.text(), answer.headers


async def stored(bus: Bus, subject: str) -> Any:
    found = await last(bus, subject)
    return None if found is None else found.message


async def test_a_command_stands_on_the_bus_under_the_name_of_its_token() -> None:
    async with bench() as (_, bus), steered(bus) as page:
        await put(bus, *site())
        subject = bus.subjects.control_deployment(CHAT)
        for action, wanted in (("pause", "pause"), ("resume", "resume"), ("unpin", "release")):
            command = {"action": action, "deployment": CHAT, "reason": "a test"}
            status, text, _ = await asked(page, command)
            assert (status, json.loads(text)["line"]) == (200, f"deployment {CHAT}: {wanted}")
            found = await stored(bus, subject)
            assert (found.action, found.reason, found.issued_by) == (wanted, "a test", "anna on the dashboard")
        status, text, _ = await asked(page, PIN, headers_of(page, TOKEN[::-1]))
        # How many is what a pin says, so it stands in the line of the audit too.
        assert (status, json.loads(text)["line"]) == (200, f"deployment {CHAT}: pin decode=3")
        found = await stored(bus, subject)
        assert (found.action, found.replicas, found.issued_by) == ("pin", {"decode": 3}, "otto on the dashboard")


async def test_the_log_has_a_line_of_each_command_with_its_name_also_where_it_has_warnings_only() -> None:
    async with bench() as (server, bus):
        await put(bus, *site())
        with NamedTemporaryFile("w") as tokens:
            tokens.write(f"anna {TOKEN}\n")
            tokens.flush()
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "deploy.cli.main", "dashboard", "--nats-url", server.url, "--port", "0"),
                *("--steer-token-file", tokens.name),
                cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            try:
                assert process.stdout is not None
                line = (await asyncio.wait_for(process.stdout.readline(), WAIT_S)).decode()
                url = line.removeprefix("dashboard on ").strip()
                status, text, _ = await asked_at(url, PAUSE)
                assert status == 200, text
            finally:
                process.terminate()
                _, logged = await asyncio.wait_for(process.communicate(), WAIT_S)
    assert f"INFO wattscale.audit: steer: deployment {CHAT}: pause, by anna on the dashboard" in logged.decode()
    assert TOKEN not in logged.decode()


async def test_a_budget_is_set_noted_and_released() -> None:
    async with bench() as (_, bus), steered(bus) as page:
        await put(bus, *site())
        subject = bus.subjects.control_budget(SITE)
        release = {"action": "budget-release", "site": SITE}
        status, text, _ = await asked(page, release)
        assert (status, "has no budget command to release" in text) == (422, True)
        change = {"action": "budget-set", "site": SITE, "watts": 1000.5, "ramp_s": 10, "for_s": 600}
        status, text, _ = await asked(page, change)
        assert status == 200
        answer = json.loads(text)
        assert answer["line"] == f"budget of site {SITE}: 1000.5 W over a ramp of 10 s"
        assert answer["note"].startswith(f"the smallest caps of site {SITE} come to 3200 W")
        found = await stored(bus, subject)
        assert isinstance(found, v1.BudgetChange)
        assert found.effective_until is not None
        assert found.effective_from is not None
        assert (found.effective_until - found.effective_from).total_seconds() == 600
        assert (await asked(page, release))[0] == 200
        found = await stored(bus, subject)
        assert (found.release, found.budget_watts, found.issued_by) == (True, 1000.5, "anna on the dashboard")


async def test_without_tokens_the_page_is_read_only() -> None:
    async with bench() as (_, bus), served(bus) as page:
        await put(bus, *site())
        async with aiohttp.ClientSession() as session, session.get(f"{page.url}steer") as answer:
            assert await answer.json() == {"steers": False}
        status, text, _ = await asked(page, PAUSE)
        assert (status, "--steer-token-file" in text) == (403, True)
        assert await stored(bus, bus.subjects.control_deployment(CHAT)) is None


async def test_what_does_not_come_from_the_page_itself_is_refused() -> None:
    async with bench() as (_, bus), steered(bus, origins=("watts.example",)) as page:
        await put(bus, *site())
        whole = headers_of(page)
        for name, value in (
            (HEADER, None), (HEADER, "0"), ("Content-Type", "text/plain"), ("Content-Type", "multipart/form-data"),
            ("Origin", None), ("Origin", "null"), ("Origin", "http://127.0.0.1:1"), ("Origin", "http://evil.example"),
            ("Origin", "http://["),
            ("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Site", "cross-site"),
        ):  # fmt: skip
            headers = {key: held for key, held in whole.items() if key != name}
            headers |= {name: value} if value is not None else {}
            status, text, _ = await asked(page, PAUSE, headers)
            assert (status, text.count("\n")) == (403, 1), (name, value)
        # No other origin may send these headers: the question before is not answered.
        async with aiohttp.ClientSession() as session:
            asks = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
            async with session.options(f"{page.url}steer", headers=asks) as answer:
                assert answer.status == 405
                assert not [name for name in answer.headers if name.startswith("Access-Control")]
        assert await stored(bus, bus.subjects.control_deployment(CHAT)) is None
        assert (await asked(page, PAUSE, whole | {"Origin": "https://watts.example"}))[0] == 200


async def test_a_token_is_needed_and_a_wrong_one_may_be_tried_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [0.0]
    with caplog.at_level(logging.DEBUG):
        async with bench() as (_, bus), steered(bus, clock=lambda: now_s[0]) as page:
            await put(bus, *site())
            headers = headers_of(page)
            without = {name: value for name, value in headers.items() if name != "Authorization"}
            for bare in (
                without,
                without | {"Authorization": "Bearer "},
                without | {"Authorization": f"Basic {TOKEN}"},
            ):
                status, text, found = await asked(page, PAUSE, bare)
                assert (status, found["WWW-Authenticate"]) == (401, 'Bearer realm="wattscale"')
                assert text == "a command needs a token\n"
            wrong = TOKEN + "wrong"
            for _ in range(WRONG_TOKENS):
                assert (await asked(page, PAUSE, headers_of(page, wrong)))[:2] == (401, "the token is wrong\n")
            for token in (wrong, TOKEN):
                # Also the right one: no token is looked at.
                status, _, found = await asked(page, PAUSE, headers_of(page, token))
                assert (status, int(found["Retry-After"]) > 0) == (429, True)
            assert await stored(bus, bus.subjects.control_deployment(CHAT)) is None
            now_s[0] = 60.0
            assert (await asked(page, PAUSE))[0] == 200
    assert "a wrong token from 127.0.0.1" in caplog.text
    assert TOKEN not in caplog.text


async def test_commands_of_one_name_are_bounded() -> None:
    async with bench() as (_, bus), steered(bus, clock=lambda: 0.0) as page:
        # What cannot be read counts too, and costs no look at the bus.
        statuses = [(await asked(page, b"{"))[0] for _ in range(COMMANDS + 1)]
        assert statuses == [422] * COMMANDS + [429]
        assert (await asked(page, b"{", headers_of(page, TOKEN[::-1])))[0] == 422


async def test_commands_that_make_no_sense_are_refused_in_one_line() -> None:
    commands: tuple[tuple[Any, str], ...] = (
        (b"", "the command"),
        ([], "the command"),
        ({"action": "restart", "deployment": CHAT}, "action"),
        ({**PAUSE, "force": True}, "force"),
        ({**PAUSE, "deployment": "prod-chta"}, f"did you mean '{CHAT}'"),
        ({**PAUSE, "deployment": ""}, "deployment"),
        ({**PAUSE, "reason": "x" * 301}, "reason"),
        ({**PAUSE, "replicas": {"decode": 1}}, "replicas"),
        ({**PIN, "replicas": {}}, "replicas"),
        ({**PIN, "replicas": {"decoed": 1}}, "did you mean 'decode'"),
        ({**PIN, "replicas": {"decode": -1}}, "replicas.decode"),
        ({**PIN, "replicas": {"decode": 1.5}}, "replicas.decode"),
        ({"action": "budget-set", "site": SITE}, "watts"),
        ({"action": "budget-set", "site": SITE, "watts": -1}, "watts"),
        (b'{"action": "budget-set", "site": "row-1", "watts": Infinity}', "watts"),
        ({"action": "budget-set", "site": "row-2", "watts": 1}, f"did you mean '{SITE}'"),
        ({"action": "budget-set", "site": SITE, "watts": 1, "ramp_s": 1e12}, "ramp_s"),
        ({"action": "budget-set", "site": SITE, "watts": 1, "for_s": 0}, "for_s: Input should be greater than 0"),
        ({"action": "budget-release", "site": SITE, "for_s": 60}, "for_s: not with budget-release"),
        ({"action": "budget-release", "site": SITE, "watts": 60}, "watts: not with budget-release"),
        ({**PAUSE, "for_s": 60, "site": SITE}, "for_s, site: not with pause"),
    )
    async with bench() as (_, bus), steered(bus) as page:
        await put(bus, *site())
        for command, hint in commands:
            status, text, _ = await asked(page, command)
            assert (status, text.count("\n"), hint in text) == (422, 1, True), (command, text)
            assert "--force" not in text
        assert (await asked(page, b" " * (MOST_BYTES + 1)))[0] == 413
        assert await stored(bus, bus.subjects.control_deployment(CHAT)) is None
        assert await stored(bus, bus.subjects.control_budget(SITE)) is None


async def test_a_login_that_may_not_steer_and_a_bus_that_is_away_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTSCALE_NATS_PASSWORD", SECRET)
    settings = example("single.conf", tmp_path)
    async with EmbeddedServer(settings=settings) as server:

        async def login(role: str) -> Bus:
            return await connect(
                BusSettings(servers=(server.url,), user=role, inbox_prefix=inbox_prefix(role), request_timeout_s=5.0)
            )

        planner, observer = await login("planner"), await login("observer")
        try:
            await stream_admin.apply(planner)
            record = next(one for one in site() if isinstance(one, v1.PlanRecord))
            await put(planner, record)
            async with steered(observer) as page:
                status, text, _ = await asked(page, PAUSE)
                assert (status, text.count("\n")) == (403, 1), text
                assert "log it in as operator" in text
                await server.stop()
                status, text, _ = await asked(page, PAUSE)
                assert (status, text.count("\n")) == (503, 1), text
        finally:
            await planner.close()
            await observer.close()
