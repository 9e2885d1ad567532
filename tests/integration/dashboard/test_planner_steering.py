"""Commands from the page that a planner serves: with an operator's login beside its own, and with that one alone."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from bus_schemas import v1
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.jetstream.tasks.task_group import ended
from deploy.dashboard.planner_steering import PlannerSteering, operator_login
from deploy.nats.embedded import EmbeddedServer
from deploy.nats.roles import inbox_prefix
from planner.runtime.config.settings import Settings, SteeringSettings
from tests.command_line import process
from tests.contract.roles.test_command_line_roles import SECRET, example
from tests.doubles.seen_site import CHAT, SITE, put, site
from tests.integration.dashboard.test_page_server import ROOT, WAIT_S, fetched, served
from tests.integration.dashboard.test_page_steering import PAUSE, TOKEN, asked_at, headers_at, stored


@asynccontextmanager
async def with_roles(folder: Path) -> AsyncIterator[tuple[str, Bus]]:
    """A server with the roles of the product, and a planner's connection to it, with a site on the bus."""
    async with EmbeddedServer(settings=example("single.conf", folder)) as server:
        bus = await connect(
            BusSettings(
                servers=(server.url,), user="planner", inbox_prefix=inbox_prefix("planner"), request_timeout_s=5.0
            )
        )
        try:
            await stream_admin.apply(bus)
            await put(bus, next(one for one in site() if isinstance(one, v1.PlanRecord)))
            yield server.url, bus
        finally:
            await bus.close()


@asynccontextmanager
async def planner(
    folder: Path, url: str, steering: dict[str, Any] | None
) -> AsyncIterator[tuple[str, list[dict[str, Any]]]]:
    """A planner's process: the address of its page, and what it logs."""
    file = folder / "planner.yaml"
    settings = {
        "bus": {"servers": [url], "user": "planner", "inbox_prefix": inbox_prefix("planner")},
        "health": {"port": None},
        "dashboard": {"port": 0, "steering": steering},
        "sites": {SITE: {"budget_watts": 10_000}},
        "deployments": {CHAT: {"site": SITE, "sizing": "load", "metrics": {"urls": ["http://127.0.0.1:1/metrics"]}}},
    }
    file.write_text(yaml.safe_dump(settings))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.cli.main", "planner", "run", "-c", str(file)),
        cwd=ROOT, stderr=asyncio.subprocess.PIPE, env={**os.environ, "WATTSCALE_NATS_PASSWORD": SECRET},
    )  # fmt: skip
    assert process.stderr is not None
    lines: list[dict[str, Any]] = []
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def read(log: asyncio.StreamReader) -> None:
        async for line in log:
            lines.append(json.loads(line))
            if lines[-1]["message"].startswith("dashboard on ") and not address.done():
                address.set_result(lines[-1]["message"].removeprefix("dashboard on "))

    reading = asyncio.create_task(read(process.stderr))
    try:
        yield await asyncio.wait_for(address, 2 * WAIT_S), lines
    finally:
        process.terminate()
        await process.wait()
        await reading


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The files that an operator gives the page: tokens, and the password of a login."""
    monkeypatch.setenv("WATTSCALE_NATS_PASSWORD", SECRET)
    for name, text in (("tokens", f"anna {TOKEN}\n"), ("password", SECRET)):
        (tmp_path / name).write_text(text)
    return {"token_file": str(tmp_path / "tokens"), "password_file": str(tmp_path / "password")}


async def answered(url: str) -> tuple[int, str]:
    """The answer to a pause, once the page's login is connected."""
    async with asyncio.timeout(2 * WAIT_S):
        while True:
            status, text, _ = await asked_at(url, PAUSE)
            if status != 503:
                return status, text
            await asyncio.sleep(0.2)


async def test_with_an_operators_login_a_pause_from_the_planners_page_arrives_under_its_tokens_name(
    tmp_path: Path, files: dict[str, str]
) -> None:
    async with (
        with_roles(tmp_path) as (url, bus),
        planner(tmp_path, url, {**files, "user": "operator"}) as (page, lines),
    ):
        assert json.loads((await fetched(f"{page}steer"))[1]) == {"steers": True}
        refused, _, _ = await asked_at(page, PAUSE, headers_at(page, "a-wrong-token-0123456789012"))
        assert refused == 401
        assert (await answered(page))[0] == 200
        found = await stored(bus, bus.subjects.control_deployment(CHAT))
        assert (found.action, found.issued_by) == ("pause", "anna on the dashboard")
    audit = [line["message"] for line in lines if line["logger"] == "wattscale.audit"]
    assert audit == [f"steer: deployment {CHAT}: pause, by anna on the dashboard"]
    assert not [line for line in lines if TOKEN in json.dumps(line) or SECRET in json.dumps(line)]


async def test_the_planners_own_login_may_not_steer(tmp_path: Path, files: dict[str, str]) -> None:
    async with with_roles(tmp_path) as (_, bus):
        block = SteeringSettings.model_validate({**files, "user": "planner", "inbox_prefix": inbox_prefix("planner")})
        part = PlannerSteering(Settings(bus=bus.settings), block)
        connection = asyncio.create_task(part.run())
        try:
            async with served(bus, steering=part.steering) as page:
                status, text = await answered(page.url)
        finally:
            await ended(connection)
        assert (status, text.count("\n")) == (403, 1), text
        assert "log it in as operator" in text
        assert await stored(bus, bus.subjects.control_deployment(CHAT)) is None


def test_the_planners_own_credentials_do_not_go_along() -> None:
    bus = BusSettings(creds_file=Path("planner.creds"), tls_ca_file=Path("ca.crt"), servers=("nats://bus:4222",))
    found = operator_login(bus, SteeringSettings(token_file=Path("t"), nkey_seed_file=Path("operator.nk")))
    assert (found.creds_file, found.nkey_seed_file, found.inbox_prefix) == (
        None,
        Path("operator.nk"),
        "_INBOX_operator",
    )
    assert (found.servers, found.tls_ca_file) == (bus.servers, bus.tls_ca_file)


@pytest.mark.parametrize(
    ("dashboard", "problem"),
    [
        ({"steering": {"token_file": "t"}}, "without a port"),
        ({"port": 1, "host": "0.0.0.0", "steering": {"token_file": "t"}}, "unencrypted to 0.0.0.0"),
        (
            {"port": 1, "steering": {"token_file": "t", "creds_file": "a", "user": "b"}},
            "creds_file and user are both set",
        ),
        ({"port": 1, "steering": {"token_file": "t", "user": "b"}}, "user and password_file belong together"),
        ({"port": 1, "steering": {"creds_file": "a"}}, "token_file"),
    ],
)
def test_settings_that_could_not_steer_safely_are_refused(dashboard: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Settings.model_validate({"dashboard": dashboard})


async def test_tokens_that_cannot_be_used_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("anna short\n")
    settings = (
        "dashboard.port=0",
        f"dashboard.steering.token_file={tmp_path / 'tokens'}",
        "deployments.chat.sizing=load",
        'deployments.chat.metrics.urls=["http://127.0.0.1:1/"]',
    )
    flags = [f"--set={one}" for one in settings]
    for what in ("check", "run"):
        done = await process("planner", what, *flags, timeout_s=2 * WAIT_S)
        last = done.err.strip().splitlines()[-1]
        assert done.code == 2, done
        assert last.startswith(
            f"wattscale: dashboard.steering.token_file {tmp_path / 'tokens'}: line 1: the token of anna"
        )
