"""The page over HTTP: its headers, its stream, the past on request, a path prefix, and what it refuses."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bus_schemas import v1
from bus_schemas.jetstream.connect import Bus
from deploy.dashboard import page_server
from deploy.dashboard.feed import Feed
from deploy.dashboard.page_server import STATIC, DashboardServer
from deploy.dashboard.past_reads import AT_ONCE, MOST_WAITING
from deploy.views.explain import explain
from tests.command_line import wattscale
from tests.contract.bus import bench, until
from tests.doubles.seen_site import CHAT, decision, power, put, record, report, scaled, site

ROOT = Path(__file__).resolve().parents[3]
WAIT_S = 60.0


@asynccontextmanager
async def served(bus: Bus, feed: Feed | None = None, **options: Any) -> AsyncIterator[DashboardServer]:
    page = DashboardServer(feed or Feed(bus, update_s=0.05), **{"host": "127.0.0.1", "port": 0, **options})
    running = asyncio.create_task(page.run())
    try:
        await asyncio.wait_for(page.serving.wait(), WAIT_S)
        yield page
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def first_events(url: str, count: int, **headers: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(id, name, data) of the first events of the stream."""
    found: list[tuple[str, str, dict[str, Any]]] = []
    async with aiohttp.ClientSession() as session, session.get(f"{url}events", headers=headers) as answer:
        assert answer.content_type == "text/event-stream"
        fields: dict[str, str] = {}
        async with asyncio.timeout(WAIT_S):
            while len(found) < count:
                line = (await answer.content.readuntil(b"\n")).decode().rstrip("\n")
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    found.append((fields["id"], fields["event"], json.loads(fields["data"])))
                    fields = {}
    return found


async def fetched(url: str, **options: Any) -> tuple[int, str, Any]:
    async with aiohttp.ClientSession() as session, session.get(url, allow_redirects=False, **options) as answer:
        return answer.status, await answer.text(), answer.headers


async def test_every_file_of_the_page_is_served_under_a_strict_policy_and_names_no_other_place() -> None:
    async with bench() as (_, bus), served(bus) as page:
        for name in ("", *(f"static/{file.name}" for file in STATIC.iterdir() if file.name != "index.html")):
            status, text, headers = await fetched(page.url + name)
            assert status == 200, name
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
            assert "https://" not in text
            assert " style=" not in text
            assert " onclick" not in text
        for name in ("static/none.js", "static/../page_server.py", "static/%2e%2e/feed.py", "metrics"):
            assert (await fetched(page.url + name))[0] == 404, name


async def test_the_stream_begins_with_everything_or_goes_on_where_a_viewer_stopped() -> None:
    async with bench() as (_, bus), served(bus) as page:
        await put(bus, *site())
        events = await first_events(page.url, 2)
        assert events[0][1] == "everything"
        assert events[1][1] == "changes"
        again = await first_events(page.url, 1, **{"Last-Event-ID": events[0][0]})
        assert again[0][:2] == events[1][:2]


async def test_a_decision_is_explained_in_the_words_of_explain() -> None:
    async with bench() as (_, bus), served(bus) as page:
        messages = record(4), decision(4, 6), scaled(4, 6)
        await put(bus, *messages, power("node-0", 7), report("node-0"))
        status, text, _ = await fetched(f"{page.url}explain?deployment={CHAT}&decision=4")
        assert status == 200
        # But for the age in the first line.
        assert text.splitlines()[1:] == explain(*messages).splitlines()[1:]
        status, text, _ = await fetched(f"{page.url}explain?node=node-0&decision=7")
        assert status == 200
        assert "rebalance: 3200 W for 8 GPUs" in text
        assert text.endswith("    not yet")
        status, text, _ = await fetched(f"{page.url}explain?deployment={CHAT}&decision=99")
        assert (status, "no record of decision #99" in text) == (404, True)


async def test_what_happened_at_a_time_is_read_from_the_bus() -> None:
    async with bench() as (_, bus), served(bus) as page:
        before_ms = int(time.time() * 1000) - 60_000
        await put(bus, decision(4, 6), scaled(4, 6), power("node-0", 7))
        status, text, _ = await fetched(f"{page.url}happened?from={before_ms}&to={before_ms + 300_000}")
        found = json.loads(text)
        assert (status, found["complete"], [event["id"] for event in found["events"]]) == (200, True, [4, 4, 7])
        _, text, _ = await fetched(f"{page.url}happened?from={before_ms - 90_000}&to={before_ms}")
        assert json.loads(text)["events"] == []


async def test_the_past_of_a_deployment_is_what_the_bus_holds() -> None:
    async with bench() as (_, bus), served(bus) as page:
        await put(bus, *site())
        status, text, _ = await fetched(f"{page.url}series?deployment={CHAT}")
        series = json.loads(text)
        assert (status, len(series["deployment"]), len(series["site"])) == (200, 4, 4)
        assert [point["decision"] for point in series["deployment"]] == [0, 1, 1, 1]


async def test_bad_questions_are_refused_in_one_line() -> None:
    queries = (
        "explain?node=x", "explain?deployment=x&decision=", "explain?deployment=x&decision=-1", "happened",
        "explain?deployment=a_b&decision=1", "happened?from=a&to=b", "happened?from=0&to=99999999999",
        "happened?from=2&to=1", "series?deployment=a%20b",
    )  # fmt: skip
    async with bench() as (_, bus), served(bus) as page:
        for query in queries:
            status, text, _ = await fetched(page.url + query)
            assert (status, text.count("\n")) == (400, 1), query


async def test_behind_a_path_prefix_every_address_works() -> None:
    async with bench() as (_, bus), served(bus, path_prefix="/site/watts/") as page:
        assert page.url.endswith("/site/watts/")
        assert (await fetched(page.url))[0] == 200
        assert (await fetched(f"{page.url}static/main.js"))[0] == 200
        assert (await first_events(page.url, 1))[0][1] == "everything"
        status, _, headers = await fetched(page.url[:-1])
        assert (status, headers["Location"]) == (308, "watts/")


@pytest.mark.parametrize("prefix", ["{", "/a{b}", "a b", "/a//b", "/a/../b", "?", "/a%2f"])
async def test_a_prefix_that_is_no_path_is_one_line(prefix: str) -> None:
    done = await wattscale("dashboard", "--nats-url", "nats://127.0.0.1:1", "--path-prefix", prefix)
    assert done.code == 2
    assert done.one_line().startswith(f"wattscale: --path-prefix: {prefix!r} is not a path")


async def test_the_file_of_tokens_is_checked_before_the_bus(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("anna short-secret\n")
    at = ("dashboard", "--nats-url", "nats://127.0.0.1:1", "--steer-token-file", str(file))
    done = await wattscale(*at)
    assert (done.code, "the token of anna has fewer than" in done.one_line()) == (2, True)
    assert "short-secret" not in done.err
    done = await wattscale(*at, "--host", "0.0.0.0")
    assert (done.code, "unencrypted" in done.one_line()) == (2, True)


async def test_questions_about_the_past_are_read_a_few_at_once_and_the_rest_is_refused_at_once() -> None:
    async with bench() as (_, bus), served(bus) as page:
        await put(bus, *site())
        now_ms = int(time.time() * 1000)
        happened = f"happened?from={now_ms - 60_000}&to={now_ms}"
        paths = (happened, f"series?deployment={CHAT}", f"explain?deployment={CHAT}")
        asks = [fetched(page.url + paths[index % 3]) for index in range(3 * (AT_ONCE + MOST_WAITING) // 2)]
        found = await asyncio.wait_for(asyncio.gather(*asks, return_exceptions=True), WAIT_S)
        for one in found:
            if isinstance(one, BaseException):
                # On a busy machine a question may wait until the listener cuts it off.
                assert isinstance(one, aiohttp.ClientError)
                continue
            status, _, headers = one
            assert status == 200 or (status == 503 and int(headers["Retry-After"]) > 0)

        async def answered() -> bool:
            return (await fetched(page.url + happened))[0] == 200

        # The places are free again.
        await until(answered, "an answer")


async def test_on_the_loopback_only_its_own_names_are_served() -> None:
    async with bench() as (_, bus):
        async with served(bus) as page:
            assert (await fetched(page.url, headers={"Host": "evil.example"}))[0] == 421
            assert (await fetched(page.url, headers={"Host": "localhost:1"}))[0] == 200
        async with served(bus, host_names=("watts.example",)) as page:
            assert (await fetched(page.url, headers={"Host": "watts.example"}))[0] == 200


async def test_the_command_serves_any_bus_and_ends_in_order() -> None:
    async with bench() as (server, bus):
        await put(bus, *site())
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", "dashboard", "--nats-url", server.url, "--port", "0"),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            line = (await asyncio.wait_for(process.stdout.readline(), WAIT_S)).decode()
            url = line.removeprefix("dashboard on ").strip()
            (event,) = await first_events(url, 1)
            assert event[1] == "everything"
            process.send_signal(signal.SIGTERM)
            _, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
            assert (process.returncode, errors) == (0, b"")
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_a_port_that_is_taken_is_one_line() -> None:
    async with bench() as (server, bus), served(bus) as page:
        port = page.url.rsplit(":", 1)[1].rstrip("/")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", "dashboard", "--nats-url", server.url, "--port", port),
            cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, errors = await asyncio.wait_for(process.communicate(), WAIT_S)
        assert process.returncode == 1
        assert errors.decode().startswith(f"wattscale: cannot listen on 127.0.0.1 port {port}")
        assert errors.decode().count("\n") == 1


async def test_odd_requests_are_refused_without_an_error_of_the_server() -> None:
    async with bench() as (_, bus), served(bus) as page:
        last_ms = 253_402_300_799_000
        for path, status in (
            ("explain?deployment=x&decision=%C2%B2", 400),
            (f"explain?deployment=x&decision={'9' * 5000}", 400),
            (f"happened?from={last_ms - 1000}&to={last_ms}", 400),
            (f"static/{'a' * 300}.js", 404),
        ):
            assert (await fetched(page.url + path))[0] == status, path


async def test_a_viewer_that_leaves_while_nothing_is_new_is_forgotten_without_an_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(page_server, "QUIET_S", 0.02)
    async with bench() as (_, bus), served(bus, feed := Feed(bus)) as page:
        async with aiohttp.ClientSession() as session, session.get(f"{page.url}events") as answer:
            async with asyncio.timeout(WAIT_S):
                while await answer.content.readuntil(b"\n") != b": nothing new\n":
                    pass
            assert feed.viewers == 1
        async with asyncio.timeout(WAIT_S):
            while feed.viewers:
                await asyncio.sleep(0.02)
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


async def test_a_viewer_that_does_not_read_is_cut_off_and_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_server, "WRITE_S", 0.2)
    text = "x" * 400_000
    async with bench() as (_, bus), served(bus, feed := Feed(bus, update_s=0.02)) as page:
        address = page.url.removeprefix("http://").rstrip("/").rsplit(":", 1)
        with socket.create_connection((address[0], int(address[1]))) as viewer:
            viewer.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_sendall(viewer, f"GET /events HTTP/1.1\r\nHost: {':'.join(address)}\r\n\r\n".encode())
            async with asyncio.timeout(WAIT_S):
                while not feed.viewers:
                    await asyncio.sleep(0.02)
                number = 0
                while feed.viewers:
                    number += 1
                    problem = v1.Reason(code="agents", text=f"{number} {text}")
                    await put(bus, record(number).model_copy(update={"problems": (problem,)}))
                tail = b""
                while more := await loop.sock_recv(viewer, 1 << 20):
                    tail = (tail + more)[-8:]
    # The rest of an event was dropped; closed in order, the server would keep it for as long as nobody reads.
    assert not tail.endswith(b"\n\n\r\n")
    assert not tail.endswith(b"0\r\n\r\n")
