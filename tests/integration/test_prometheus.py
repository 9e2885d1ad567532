"""Readings through a REAL Prometheus that scrapes engine doubles: right numbers, and missing where it must be."""

from __future__ import annotations

import asyncio
import math
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from planner.adapters.metrics.prometheus_client import PrometheusClient, PrometheusError, PrometheusSettings
from planner.adapters.metrics.prometheus_observer import PrometheusObserver
from planner.adapters.metrics.series_selector import PoolSelector, SeriesSelector
from planner.domain.ids import DeploymentId, PoolId
from planner.domain.observation import DeploymentObservation
from planner.domain.pool import Role
from planner.domain.reading import Missing, MissingReason, Sample
from tests.doubles.engine_metrics import EngineMetrics, MetricsServer
from tests.integration.prometheus_process import prometheus

MODEL = "Llama-8B"
POOLS = {PoolId("prefill"): PoolSelector(Role.PREFILL), PoolId("decode"): PoolSelector(Role.DECODE)}
WAIT_S = 60.0
WINDOW_S = 4.0


def target(namespace: str = "prod-chat") -> SeriesSelector:
    return SeriesSelector(DeploymentId(namespace), model=MODEL.lower(), namespace=namespace, pools=POOLS)


@asynccontextmanager
async def observing(
    url: str, aim: SeriesSelector, *, stale_s: float = 60.0, pull_s: float | None = None
) -> AsyncIterator[PrometheusObserver]:
    client = PrometheusClient(PrometheusSettings(url, timeout_s=5.0, retries=0))
    observer = PrometheusObserver(client, aim, window_s=WINDOW_S, stale_s=stale_s, pull_s=pull_s)
    try:
        yield observer
    finally:
        await client.close()


async def until(
    observer: PrometheusObserver,
    holds: Callable[[DeploymentObservation], bool],
    act: Callable[[], None] = lambda: None,
) -> DeploymentObservation:
    async with asyncio.timeout(WAIT_S):
        while True:
            act()
            seen = await observer.observe(asyncio.get_running_loop().time())
            if holds(seen):
                return seen
            await asyncio.sleep(0.2)


async def test_readings_of_one_deployment_among_others(tmp_path: Path) -> None:
    """Two models and two namespaces on one Prometheus; the load is steady, so rates are known."""
    mine, other = EngineMetrics("prod-chat"), EngineMetrics("prod-other")
    mine.worker(MODEL, "prefill", "p0", running=1, waiting=4, kv=0.1)
    mine.worker(MODEL, "backend", "d0", running=10, waiting=0, kv=0.5)
    mine.worker(MODEL, "backend", "d1", running=20, waiting=1, kv=0.7)
    other.worker(MODEL, "backend", "x0", running=99, waiting=9, kv=0.9)

    def load() -> None:
        mine.serve(MODEL, 6, isl=800, osl=150, ttft_s=0.3, itl_s=0.015)
        mine.serve(MODEL, 2, isl=1600, osl=150, ttft_s=0.7, itl_s=0.015)
        mine.serve("another", 50, isl=9000, osl=10, ttft_s=4.0, itl_s=0.09)
        other.serve(MODEL, 50, isl=9000, osl=10, ttft_s=4.0, itl_s=0.09)

    load()
    async with MetricsServer(mine) as one, MetricsServer(other) as two:
        addresses = {"mine": one.url.split("/")[2], "other": two.url.split("/")[2]}
        async with prometheus(tmp_path, addresses) as url, observing(url, target()) as observer:
            started = asyncio.get_running_loop().time()
            pushed = 0

            def push() -> None:
                nonlocal pushed
                due = int((asyncio.get_running_loop().time() - started) / 0.2)
                for _ in range(due - pushed):
                    load()
                pushed = due

            seen = await until(observer, lambda s: isinstance(s.requests, Sample) and s.requests.value > 120, push)
            assert seen.interval_s == WINDOW_S
            assert isinstance(seen.requests, Sample)
            assert seen.requests.value == pytest.approx(8 / 0.2 * WINDOW_S, rel=0.3)
            assert isinstance(seen.isl_tokens, Sample)
            assert seen.isl_tokens.value == pytest.approx(1000, rel=0.01)
            assert isinstance(seen.ttft_ms, Sample)
            assert seen.ttft_ms.value == pytest.approx(400, rel=0.01)
            assert isinstance(seen.itl_ms, Sample)
            assert seen.itl_ms.value == pytest.approx(15, rel=0.01)
            assert isinstance(seen.ttft_p95_ms, Sample)
            assert 500 < seen.ttft_p95_ms.value <= 1000
            decode = seen.pools[PoolId("decode")]
            assert decode.replicas.ready == 2
            assert isinstance(decode.kv_usage, Sample)
            assert decode.kv_usage.value == pytest.approx(0.6)
            assert seen.pools[PoolId("prefill")].queued_requests == Sample(4.0)


async def test_queues_and_kv_use_are_means_over_the_window_where_thresholds_ask_for_them(tmp_path: Path) -> None:
    engine = EngineMetrics()
    prefill, decode = PoolId("prefill"), PoolId("decode")

    def hold(waiting: int, kv: float) -> None:
        engine.worker(MODEL, "prefill", "p0", running=1, waiting=waiting, kv=0.1)
        engine.worker(MODEL, "backend", "d0", running=10, waiting=0, kv=kv)

    hold(40, 0.9)
    async with (
        MetricsServer(engine) as server,
        prometheus(tmp_path, {"mine": server.url.split("/")[2]}) as url,
        observing(url, target(), pull_s=0.5) as observer,
    ):

        def full(seen: DeploymentObservation) -> bool:
            return prefill in seen.pools and seen.pools[prefill].mean_queued_requests == Sample(40.0)

        await until(observer, full)
        hold(0, 0.1)
        seen = await until(observer, lambda s: not full(s))
        mean = seen.pools[prefill].mean_queued_requests
        assert isinstance(mean, Sample)
        assert seen.pools[prefill].queued_requests == Sample(0.0)
        assert 10 < mean.value < 40
        usage = seen.pools[decode].mean_kv_usage
        assert isinstance(usage, Sample)
        assert 0.3 < usage.value < 0.9
        await until(observer, lambda s: s.pools[prefill].mean_queued_requests == Sample(0.0))


async def test_a_tick_that_no_planner_saw_is_read_afterwards_as_it_was(tmp_path: Path) -> None:
    engine = EngineMetrics()
    engine.worker(MODEL, "backend", "d0", running=10, waiting=0, kv=0.5)
    load, pushed = 8, 0
    clock = asyncio.get_running_loop().time
    started_s = clock()

    def push() -> None:
        nonlocal pushed
        due = int((clock() - started_s) / 0.2) + 1
        for _ in range(due - pushed):
            engine.serve(MODEL, load, isl=1000, osl=150, ttft_s=0.4, itl_s=0.015)
        pushed = due

    push()
    async with (
        MetricsServer(engine) as server,
        prometheus(tmp_path, {"mine": server.url.split("/")[2]}) as url,
        observing(url, target()) as observer,
    ):
        seen = await until(observer, lambda s: isinstance(s.requests, Sample) and s.requests.value > 120, push)
        assert isinstance(seen.requests, Sample)
        then_s, before = clock(), seen.requests.value
        # The same load for another window: a machine that takes its time between two clocks reads the same.
        await until(observer, lambda _: clock() > then_s + WINDOW_S, push)
        load = 80
        later = await until(observer, lambda s: isinstance(s.requests, Sample) and s.requests.value > 5 * before, push)
        again = await observer.reread(then_s, clock())
    assert isinstance(again.requests, Sample)
    assert again.requests.value == pytest.approx(before, rel=0.3)
    assert isinstance(again.ttft_ms, Sample)
    assert again.ttft_ms.value == pytest.approx(400, rel=0.01)
    assert again.interval_s == later.interval_s == WINDOW_S
    assert again.pools.keys() == seen.pools.keys()


async def test_a_reset_and_a_silent_frontend_are_missing_not_less_load(tmp_path: Path) -> None:
    engine = EngineMetrics()

    def load() -> None:
        server.engine.serve(MODEL, 3, isl=800, osl=150, ttft_s=0.3, itl_s=0.015)

    async with MetricsServer(engine) as server:
        load()
        async with (
            prometheus(tmp_path, {"mine": server.url.split("/")[2]}) as url,
            observing(url, target()) as observer,
        ):
            await until(observer, lambda s: isinstance(s.requests, Sample) and s.requests.value > 20, load)
            server.engine = EngineMetrics(boot_s=2000.0)
            load()
            reset = await until(observer, lambda s: isinstance(s.requests, Missing))
            assert isinstance(reset.requests, Missing)
            assert reset.requests.reason is MissingReason.COUNTER_RESET
            await until(observer, lambda s: isinstance(s.requests, Sample), load)
            server.broken = True
            gone = await until(observer, lambda s: isinstance(s.requests, Missing))
            assert isinstance(gone.requests, Missing)
            assert gone.requests.reason in {MissingReason.NO_DATA, MissingReason.NOT_EXPORTED}
            assert gone.pools == {}


async def test_no_prometheus_is_missing_with_an_age(tmp_path: Path) -> None:
    engine = EngineMetrics()
    async with MetricsServer(engine) as server:
        engine.serve(MODEL, 3, isl=800, osl=150, ttft_s=0.3, itl_s=0.015)
        async with observing("http://127.0.0.1:1", target()) as observer:
            seen = await observer.observe(0.0)
            assert seen.requests == Missing(MissingReason.UNREACHABLE)
            assert "127.0.0.1:1" in observer.last_error
        async with (
            prometheus(tmp_path, {"mine": server.url.split("/")[2]}) as url,
            observing(url, target("nobody")) as observer,
        ):
            seen = await observer.observe(0.0)
            assert isinstance(seen.requests, Missing)
            assert seen.requests.reason is MissingReason.NOT_EXPORTED


def certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on this machine to make a certificate with")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


async def test_tls_is_verified_unless_switched_off(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    web = tmp_path / "web.yml"
    web.write_text(f"tls_server_config:\n  cert_file: {cert}\n  key_file: {key}\n")
    async with prometheus(tmp_path, {}, web_config=web) as url:
        for settings, answers in (
            (PrometheusSettings(url, retries=0), False),
            (PrometheusSettings(url, retries=0, ca_file=cert), True),
            (PrometheusSettings(url, retries=0, verify_tls=False), True),
        ):
            client = PrometheusClient(settings)
            try:
                if answers:
                    assert (await client.query("vector(3)"))[0].value == 3.0
                else:
                    with pytest.raises(PrometheusError, match="certificate verify failed"):
                        await client.query("vector(3)")
            finally:
                await client.close()


@asynccontextmanager
async def gate(answers: list[int]) -> AsyncIterator[tuple[str, list[web.Request], list[dict[str, str]]]]:
    """A front end of Prometheus that answers with the given codes in turn, then well; what it was asked."""
    requests: list[web.Request] = []
    forms: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request)
        forms.append({key: str(value) for key, value in (await request.post()).items()})
        code = answers.pop(0) if answers else 200
        if code == 400:
            return web.json_response({"status": "error", "error": "parse error"}, status=400)
        body = {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [0, "NaN"]}]}}
        return web.json_response(body, status=code)

    app = web.Application()
    app.router.add_post("/base/api/v1/query", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/base/", requests, forms
    finally:
        await runner.cleanup()


async def test_tokens_are_read_again_and_parameters_go_with_every_query(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    async with gate([]) as (url, requests, forms):
        settings = PrometheusSettings(
            url, bearer_token_file=token, params={"tenant": "a"}, headers={"X-Scope-OrgID": "b"}
        )
        client = PrometheusClient(settings)
        try:
            rows = await client.query("up", at_s=12.3456)
            assert math.isnan(rows[0].value)
            token.write_text("two\n")
            await client.query("up")
        finally:
            await client.close()
    assert [request.headers["Authorization"] for request in requests] == ["Bearer one", "Bearer two"]
    assert requests[0].headers["X-Scope-OrgID"] == "b"
    assert forms[0] == {"tenant": "a", "query": "up", "time": "12.346"}
    assert "s3cret" not in repr(replace(settings, bearer_token="s3cret"))


async def test_passing_failures_are_tried_again_and_refusals_are_not() -> None:
    async with gate([503, 429]) as (url, requests, _):
        client = PrometheusClient(PrometheusSettings(url, retries=2, retry_pause_s=0.01))
        try:
            assert len(await client.query("up")) == 1
            assert len(requests) == 3
        finally:
            await client.close()
    async with gate([400, 503, 503, 503]) as (url, requests, _):
        client = PrometheusClient(PrometheusSettings(url, retries=2, retry_pause_s=0.01))
        try:
            with pytest.raises(PrometheusError, match="answered 400: parse error"):
                await client.query("up{")
            assert len(requests) == 1
            with pytest.raises(PrometheusError, match=r"answered 503 \(3 attempts\)"):
                await client.query("up")
        finally:
            await client.close()
