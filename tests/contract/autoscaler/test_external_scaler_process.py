"""KEDA's client, generated from our definition, asks a real process of the connector over gRPC; the bus is real too."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from tests.contract.autoscaler.autoscaler_site import DEPLOYMENT, AutoscalerSite, autoscaler_site
from tests.contract.autoscaler.scaler_client import ScalerClient, channel_to, generated
from tests.contract.bus import until
from tests.contract.roles.certificates import Authority

Modules = tuple[ModuleType, ModuleType]
Code = grpc.StatusCode
NAMED = {"deployment": DEPLOYMENT, "pool": "decode", "scalerAddress": "wattscale:9105"}


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Modules:
    return generated(tmp_path_factory.mktemp("client"))


def scaler_settings(site: AutoscalerSite, **changes: Any) -> dict[str, Any]:
    """Nothing but the external scaler."""
    scaler = {"host": "127.0.0.1", "port": site.keda, **changes.pop("scaler", {})}
    return {"metrics_api": {"port": "none"}, "external_scaler": scaler, "claim_ttl_s": 1, **changes}


def nowhere(folder: Path) -> dict[str, str]:
    """An environment without an API server."""
    return {"KUBECONFIG": str(folder / "none"), "HOME": str(folder)}


async def gives(client: ScalerClient, count: int) -> None:
    """Wait until the value is this one."""

    async def given() -> bool:
        try:
            return await client.value() == (count, float(count))
        except grpc.aio.AioRpcError as error:
            if error.code() is not Code.UNAVAILABLE:
                raise
            return False

    await until(given, f"the value {count}")


async def refuses(client: ScalerClient, words: str) -> None:
    """Wait until there is no value, for this reason."""

    async def refused() -> bool:
        try:
            await client.value()
        except grpc.aio.AioRpcError as error:
            return error.code() is Code.UNAVAILABLE and words in str(error.details())
        return False

    await until(refused, f"a refusal with {words!r}")


async def test_zero_and_back_are_pushed_and_values_are_pulled(
    tmp_path: Path, modules: Modules, record_property: Callable[[str, object], None]
) -> None:
    async with autoscaler_site(tmp_path) as site:
        # The bus is asked again only after 150 s: whatever arrives sooner was pushed by it.
        settings = scaler_settings(site, max_age_s=600)
        async with site.connector(settings, nowhere(tmp_path)), channel_to(site.keda) as channel:
            client = ScalerClient(modules, channel, NAMED)
            await refuses(client, "there is no decision yet")
            assert (await client.refusal(client.active()))[0] is Code.UNAVAILABLE
            assert await client.spec() == [("wattscale-decode", 1, 1.0)]
            stream = client.stream()
            await site.decide(0, 21)
            assert await stream.next() is True
            assert await client.active()
            await gives(client, 21)
            began_s = time.monotonic()
            await site.decide(1, 0)
            assert await stream.next() is False
            pushed_ms = (time.monotonic() - began_s) * 1e3
            assert await client.value() == (0, 0.0)
            assert not await client.active()
            await site.decide(2, 7)
            assert await stream.next() is True
            began_s = time.monotonic()
            await site.decide(3, 9)
            await gives(client, 9)
            pulled_ms = (time.monotonic() - began_s) * 1e3
            record_property("measured", f"decision to KEDA's stream {pushed_ms:.0f} ms, to a value {pulled_ms:.0f} ms")
            await site.decide(4, 0)
            assert await stream.next() is False, "7 to 9 is no change of active"

            code, _ = await client.refusal(anext(aiter(client.stub.StreamMetricSpec(client.ref()))))
            assert code is Code.UNIMPLEMENTED
            for change in ({"deployment": ""}, {"pool": ""}):
                for call in (client.value(**change), client.stub.IsActive(client.ref(**change))):
                    code, text = await client.refusal(call)
                    assert code is Code.INVALID_ARGUMENT
                    assert "prod/llama-decode: set deployment and pool in the trigger's metadata" in text
                assert (await client.stream(**change).end())[0] is Code.INVALID_ARGUMENT
            code, text = await client.refusal(client.stub.GetMetricSpec(client.ref(deployment="other")))
            assert (code, DEPLOYMENT in text) == (Code.NOT_FOUND, True)
            assert (await client.refusal(client.value("wattscale-other", pool="other")))[0] is Code.NOT_FOUND
            assert (await client.refusal(client.value("wattscale-prefill")))[0] is Code.INVALID_ARGUMENT


async def test_without_the_bus_a_spec_is_answered_and_a_value_is_an_error(tmp_path: Path, modules: Modules) -> None:
    async with autoscaler_site(tmp_path) as site:
        await site.decide(0, 21)
        settings = scaler_settings(site, max_age_s=1)
        async with site.connector(settings, nowhere(tmp_path)), channel_to(site.keda) as channel:
            client = ScalerClient(modules, channel, NAMED)
            await gives(client, 21)
            stream = client.stream()
            assert await stream.next() is True
            os.kill(site.nats_pid, signal.SIGSTOP)
            try:
                await refuses(client, "the bus last confirmed the newest decision")
                assert await client.spec() == [("wattscale-decode", 1, 1.0)]
                assert (await client.refusal(client.active()))[0] is Code.UNAVAILABLE
                late = client.stream()
                pushed = asyncio.create_task(late.next())
                assert await client.spec()  # Asked after the stream on one connection, so the stream is open too.
                assert not pushed.done()
                assert not stream.done()
            finally:
                os.kill(site.nats_pid, signal.SIGCONT)
            assert await pushed is True
            await gives(client, 21)
            await site.decide(1, 0)
            assert await late.next() is False
            assert await stream.next() is False, "the older stream lived through it, and had nothing to repeat"


async def test_a_new_stream_after_a_restart_of_either_side_begins_with_the_present_state(
    tmp_path: Path, modules: Modules
) -> None:
    async with autoscaler_site(tmp_path) as site:
        await site.decide(0, 21)
        settings, environment = scaler_settings(site), nowhere(tmp_path)
        async with site.connector(settings, environment) as process:
            for count in (0, 5):
                await site.decide(count + 1, count)
                async with channel_to(site.keda) as channel:  # KEDA started again.
                    client = ScalerClient(modules, channel, NAMED)
                    await gives(client, count)
                    stream = client.stream()
                    assert await stream.next() is (count > 0)
                    if count:
                        process.kill()
                        await process.wait()
                        with pytest.raises(grpc.aio.AioRpcError):
                            await stream.next()
        await site.decide(7, 0)
        async with site.connector(settings, environment) as process, channel_to(site.keda) as channel:
            client = ScalerClient(modules, channel, NAMED)
            await gives(client, 0)
            stream = client.stream()
            assert await stream.next() is False
            process.terminate()
            assert await stream.next() is None, "the stream breaks off at an orderly stop"
            assert (await stream.end())[0] is Code.OK


async def test_tls_asks_for_clients_certificates_and_takes_renewed_files(tmp_path: Path, modules: Modules) -> None:
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    pair, own = old.issue("server"), old.issue("keda")
    files = {"tls_cert_file": str(pair.cert), "tls_key_file": str(pair.key), "tls_client_ca_file": str(old.own.cert)}

    def trusting(authority: Authority, client: bool = True) -> grpc.ChannelCredentials:
        chain = (own.key.read_bytes(), own.cert.read_bytes()) if client else (None, None)
        return grpc.ssl_channel_credentials(authority.own.cert.read_bytes(), *chain)

    async def refused(credentials: grpc.ChannelCredentials | None) -> None:
        async with channel_to(site.keda, credentials) as channel:
            client = ScalerClient(modules, channel, NAMED)
            assert (await client.refusal(client.value()))[0] is Code.UNAVAILABLE

    async with autoscaler_site(tmp_path) as site:
        await site.decide(0, 21)
        async with site.connector(scaler_settings(site, scaler=files), nowhere(tmp_path)):
            async with channel_to(site.keda, trusting(old)) as channel:
                await gives(ScalerClient(modules, channel, NAMED), 21)
            for credentials in (None, trusting(new), trusting(old, client=False)):
                await refused(credentials)
            renewed = new.issue("server")
            pair.key.write_bytes(renewed.key.read_bytes())
            await until(lambda: _still(site, modules, trusting(old)), "the old pair to stand while files do not match")
            pair.cert.write_bytes(renewed.cert.read_bytes())
            async with channel_to(site.keda, trusting(new)) as channel:
                await gives(ScalerClient(modules, channel, NAMED), 21)
            await refused(trusting(old))


async def _still(site: AutoscalerSite, modules: Modules, credentials: grpc.ChannelCredentials) -> bool:
    async with channel_to(site.keda, credentials) as channel:
        return await ScalerClient(modules, channel, NAMED).value() == (21, 21.0)


async def test_an_address_that_is_taken_and_files_that_cannot_be_used_end_it_with_one_line(tmp_path: Path) -> None:
    async with autoscaler_site(tmp_path) as site:
        taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", site.keda)
        async with taken, site.connector(scaler_settings(site), nowhere(tmp_path)) as process:
            assert await asyncio.wait_for(process.wait(), 60) == 2
        assert f"cannot listen on 127.0.0.1:{site.keda}" in site.log.read_text().splitlines()[-1]
        (tmp_path / "tls.pem").write_text("nothing")
        files = {"tls_cert_file": str(tmp_path / "tls.pem"), "tls_key_file": str(tmp_path / "tls.pem")}
        async with site.connector(scaler_settings(site, scaler=files), nowhere(tmp_path)) as process:
            assert await asyncio.wait_for(process.wait(), 60) == 2
        last = site.log.read_text().splitlines()[-1]
        assert "external_scaler" in last
        assert "tls.pem" in last
