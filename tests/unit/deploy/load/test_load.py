"""Requests at their times against a real engine, and the figures over their answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import math

import pytest

from deploy.load.load_client import NOT_SENT, LoadClient, LoadTarget
from deploy.load.outcomes import RequestOutcome, as_lines, summary
from deploy.load.schedule import bounded, poisson, prompt_of
from planner.domain.request import Request
from tests.command_line import process, wattscale
from tests.free_ports import free_port
from tests.unit.deploy.engine.test_engine_app import SLOW, engine


def target(url: str, **more) -> LoadTarget:
    fields = {"model": "demo", "chat": False, "key": "", "timeout_s": 60.0, "max_in_flight": 100}
    return LoadTarget(url, **{**fields, **more})


def test_poisson_arrivals_have_their_rate_and_its_spread():
    times = [one.t_s for one in itertools.islice(poisson(5.0, 10, 20, 1), 20_000)]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.2, rel=0.05)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.1)
    assert times == [one.t_s for one in itertools.islice(poisson(5.0, 10, 20, 1), 20_000)]


def test_a_schedule_ends_by_count_or_by_time():
    assert len(list(bounded(poisson(5.0, 1, 1, 0), 7, None))) == 7
    some = list(bounded(poisson(5.0, 1, 1, 0), None, 10.0))
    assert some[-1].t_s <= 10.0 < next(itertools.islice(poisson(5.0, 1, 1, 0), len(some), None)).t_s


def test_prompts_have_their_length_and_share_blocks():
    first = prompt_of(Request(0, 600, 1, (7, 8)), 1).split()
    second = prompt_of(Request(0, 1000, 1, (7, 9)), 2).split()
    assert (len(first), len(second)) == (600, 1000)
    assert first[:512] == second[:512]
    assert first[512] != second[512]
    assert prompt_of(Request(0, 3, 1), 5) == "r5 r5 r5"


def test_good_requests_are_whole_and_within_both_targets():
    outcomes = [
        RequestOutcome(0.0, 0.1, 1.0, 10),
        RequestOutcome(0.0, 0.3, 1.0, 10),
        RequestOutcome(0.0, 0.1, 5.0, 10),
        RequestOutcome(0.0, 0.1, 0.1, 1),
        RequestOutcome(0.5, failure="status 503"),
    ]
    figures = summary(outcomes, 10.0, 200.0, 100.0)
    assert (figures["requests"], figures["completed"], figures["good_requests"]) == (5, 4, 2)
    assert figures["failed"] == {"status 503": 1}
    assert figures["ttft_ms"]["p50"] == pytest.approx(100)
    assert figures["ttft_ms"]["max"] == pytest.approx(300)
    assert figures["itl_ms"]["mean"] == pytest.approx((100 + 700 / 9 + 4900 / 9) / 3)
    assert "good       2 (40.0%)" in as_lines(figures)
    assert math.isnan(outcomes[3].itl_s)


def test_without_answers_there_are_no_figures():
    figures = summary([], 1.0, 200.0, 100.0)
    assert figures["good_share"] is None
    assert figures["ttft_ms"] is None
    assert "requests   0" in as_lines(figures)


@pytest.mark.parametrize("chat", [False, True])
async def test_answers_are_measured_as_they_stream(chat):
    async with engine() as running:
        client = LoadClient(target(running.url, chat=chat))
        await client.run([Request(0.01 * number, 30, 5) for number in range(20)])
        assert [one.failure for one in client.outcomes] == [""] * 20
        assert {one.tokens for one in client.outcomes} == {5}
        assert all(0 < one.ttft_s <= one.e2e_s for one in client.outcomes)


async def test_what_is_refused_fails_by_name_and_the_rest_goes_on():
    async with engine() as running:
        client = LoadClient(target(running.url, timeout_s=30.0))
        await client.run([Request(0, 10, 5), Request(0, 10, 10_000), Request(0, 10, 5)])
        assert sorted(one.failure for one in client.outcomes) == ["", "", "status 400"]


async def test_requests_beyond_the_most_in_flight_are_not_sent():
    async with engine(SLOW) as running:
        client = LoadClient(target(running.url, max_in_flight=2))
        await client.run([Request(0, 10, 2) for _ in range(5)])
        assert sorted(one.failure for one in client.outcomes) == ["", "", NOT_SENT, NOT_SENT, NOT_SENT]
        assert client.sent == 2


async def test_an_answer_that_breaks_off_is_a_failure():
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        writer.write(b'data: {"choices": [{"text": "a"}]}\n\n')
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(broken, "127.0.0.1", 0) as server:
        client = LoadClient(target(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        await client.run([Request(0, 1, 5)])
    assert [one.failure for one in client.outcomes] == ["a stream that ended without [DONE]"]


async def test_the_command_prints_json_and_its_exit_code_says_how_it_went():
    async with engine() as running:
        words = ("load", "--url", running.url, "--model", "demo", "--isl", "10", "--osl", "3", "--rate", "100")
        done = await process(*words, "--requests", "5", "--json", "--ttft-ms", "60000", "--itl-ms", "60000")
        assert done.code == 0
        assert json.loads(done.out)["good_requests"] == 5
        done = await process(*words, "--requests", "5", "--ttft-ms", "0.001", "--min-good", "0.5")
        assert done.code == 1
        assert "good       0 (0.0%)" in done.out
    done = await process(
        "load", "--url", f"http://127.0.0.1:{free_port()}", "--model", "demo", "--requests", "2", "--rate", "100"
    )
    assert done.code == 1
    assert "failed     2: ClientConnectorError" in done.out


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--url", "localhost:80"), "not an address"),
        (("--url", "http://me:secret@localhost"), "it holds credentials"),
        (("--url", "http://localhost", "--speed", "2"), "--speed goes with --trace"),
        (("--url", "http://localhost", "--trace", "/no/such/file"), "/no/such/file"),
    ],
)
async def test_what_cannot_work_is_refused_in_one_line(words, part):
    done = await wattscale("load", "--model", "demo", *words)
    assert done.code == 2
    assert part in done.one_line()
    assert "secret" not in done.err
