"""Ways to log in: client certificates, nkeys, JWT credentials; what is wrong is refused at once."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from bus_schemas.errors import BusRefusedError, BusUnreachableError, NotStoredError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import connect
from bus_schemas.jetstream.publisher import publish
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.subjects import Subjects
from deploy.nats.cluster import Tls
from deploy.nats.embedded import EmbeddedServer
from deploy.nats.roles import BUS_ACCOUNT, FIELD_ACCOUNT, SiteAccounts, accounts, agent, inbox_prefix, planner
from tests.contract.bus import applied, power, until
from tests.contract.roles.certificates import Authority
from tests.doubles.nats_jwt import JwtOperator, Key

SUBJECTS = Subjects()
NODE = "node-7"


async def refused(why: str = "", **settings: Any) -> str:
    """The one line with which a connection is refused, in seconds rather than minutes."""
    with pytest.raises(BusUnreachableError) as caught:
        await asyncio.wait_for(connect(BusSettings(connect_timeout_s=300, **settings)), 60)
    assert "\n" not in str(caught.value)
    assert why in str(caught.value).lower()
    return str(caught.value)


async def test_client_certificates_and_their_roles(tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path / "ca"), Authority(tmp_path / "other", "other")
    server_pair, planner_pair = authority.issue("nats"), authority.issue("planner")
    forged, expired = stranger.issue("planner"), authority.issue("old", days=0)
    tls = Tls(str(server_pair.cert), str(server_pair.key), str(authority.own.cert)).conf() | {"verify_and_map": True}
    site = SiteAccounts(planners=({"user": "CN=planner,O=wattscale"},))
    settings = {"tls": tls, **accounts(SUBJECTS, site)}
    ca = {"tls_ca_file": authority.own.cert}
    async with EmbeddedServer(settings=settings) as server:
        at: dict[str, Any] = {"servers": (server.url,)}
        good = {
            "tls_cert_file": planner_pair.cert,
            "tls_key_file": planner_pair.key,
            "inbox_prefix": inbox_prefix("planner"),
        }
        bus = await connect(BusSettings(**at, **ca, **good))
        assert len(await stream_admin.apply(bus)) == len(stream_admin.wanted(bus))
        await bus.close()
        await refused("", **at, **ca)
        await refused("", **at, **ca, tls_cert_file=forged.cert, tls_key_file=forged.key)
        await refused("", **at, **ca, tls_cert_file=expired.cert, tls_key_file=expired.key)
        await refused("certificate", **at, **{**good, "tls_ca_file": stranger.own.cert})
        await refused("read", **at, tls_ca_file=tmp_path / "absent.pem")


async def test_nkeys(tmp_path: Path) -> None:
    mine, other = Key.new("user"), Key.new("user")
    site = SiteAccounts(planners=({"nkey": mine.public},))
    seed, wrong = tmp_path / "seed", tmp_path / "wrong"
    seed.write_bytes(mine.seed + b"\n")
    wrong.write_bytes(other.seed)
    async with EmbeddedServer(settings=accounts(SUBJECTS, site)) as server:
        at: dict[str, Any] = {"servers": (server.url,), "inbox_prefix": inbox_prefix("planner")}
        bus = await connect(BusSettings(**at, nkey_seed_file=seed))
        assert len(await stream_admin.apply(bus)) == len(stream_admin.wanted(bus))
        await bus.close()
        text = await refused("authorization", **at, nkey_seed_file=wrong)
        assert other.seed.decode() not in text
        await refused("read", **at, nkey_seed_file=tmp_path / "absent")
        wrong.write_text("rubbish")
        await refused(**at, nkey_seed_file=wrong)


async def test_jwt_credentials_with_the_same_roles(tmp_path: Path) -> None:
    operator, stranger = JwtOperator(SUBJECTS), JwtOperator(SUBJECTS)

    def creds(name: str, text: str) -> Path:
        path = tmp_path / f"{name}.creds"
        path.write_text(text)
        return path

    leads = creds("planner", operator.credentials(BUS_ACCOUNT, "planner", planner(SUBJECTS)))
    works = creds("agent", operator.credentials(FIELD_ACCOUNT, NODE, agent(SUBJECTS, NODE)))
    foreign = creds("foreign", stranger.credentials(BUS_ACCOUNT, "planner", planner(SUBJECTS)))
    late = creds("late", operator.credentials(BUS_ACCOUNT, "planner", planner(SUBJECTS), time.time() - 60))
    async with EmbeddedServer(settings=operator.conf()) as server:
        at: dict[str, Any] = {"servers": (server.url,)}
        bus = await connect(BusSettings(**at, creds_file=leads, inbox_prefix=inbox_prefix("planner")))
        assert len(await stream_admin.apply(bus)) == len(stream_admin.wanted(bus))
        node = await connect(
            BusSettings(**at, creds_file=works, inbox_prefix=inbox_prefix("agent", NODE), request_timeout_s=1)
        )
        assert await publish(node, SUBJECTS.ack_power(NODE), applied(power(NODE, 0)), "a") == 1
        with pytest.raises(NotStoredError, match="not permitted"):
            await publish(node, SUBJECTS.decision_power(NODE), power(NODE, 0), "d")
        await node.close()
        await bus.close()
        await refused("authorization", **at, creds_file=foreign)
        await refused("a", **at, creds_file=late)
        await refused("authorization", **at)


async def test_a_credential_that_expires_under_way_is_followed_by_its_successor(tmp_path: Path) -> None:
    operator, path = JwtOperator(SUBJECTS), tmp_path / "planner.creds"
    async with EmbeddedServer(settings=operator.conf()) as server:
        settings = BusSettings(servers=(server.url,), creds_file=path, inbox_prefix=inbox_prefix("planner"))
        path.write_text(operator.credentials(BUS_ACCOUNT, "planner", planner(SUBJECTS), time.time() + 5))
        bus = await connect(settings)
        first = bus.nc
        path.write_text(operator.credentials(BUS_ACCOUNT, "planner", planner(SUBJECTS)))
        await until(lambda: not first.is_connected or first.stats["reconnects"] > 0, "the end of the first one", 60)
        await asyncio.wait_for(bus.ready(), 60)
        assert len(await stream_admin.apply(bus)) == len(stream_admin.wanted(bus))
        assert await stream_admin.plan(bus) == []
        await bus.close()


@pytest.mark.parametrize(
    ("kind", "half"),
    [("creds", b""), ("creds", b"rubbish"), ("nkey", b""), ("nkey", b"rubbish"), ("password", b"\xff")],
)
async def test_a_secret_that_was_half_written_while_reconnecting_is_read_again(
    tmp_path: Path, kind: str, half: bytes
) -> None:
    operator, key, path = JwtOperator(SUBJECTS), Key.new("user"), tmp_path / "secret"
    secret, conf, who = {
        "creds": (
            operator.credentials(BUS_ACCOUNT, "planner", planner(SUBJECTS)).encode(),
            operator.conf,
            {"creds_file": path},
        ),
        "nkey": (
            key.seed,
            lambda: accounts(SUBJECTS, SiteAccounts(planners=({"nkey": key.public},))),
            {"nkey_seed_file": path},
        ),
        "password": (
            b"secret",
            lambda: {"authorization": {"user": "me", "password": "secret"}},
            {"user": "me", "password_file": path},
        ),
    }[kind]
    path.write_bytes(secret)
    async with EmbeddedServer(settings=conf()) as server:
        bus = await connect(BusSettings(servers=(server.url,), inbox_prefix=inbox_prefix("planner"), **who))  # type: ignore[arg-type]
        first = bus.nc
        await server.kill()
        path.write_bytes(half)
        await server.start()
        await until(lambda: first.is_closed, "the client to give up", 30)
        path.write_bytes(secret)
        await asyncio.wait_for(bus.ready(), 60)
        await bus.close()


async def test_a_key_that_was_exchanged_while_the_server_was_away_is_used(tmp_path: Path) -> None:
    old, new, path = Key.new("user"), Key.new("user"), tmp_path / "seed"
    path.write_bytes(old.seed)
    conf = {"authorization": {"users": [{"nkey": old.public}, {"nkey": new.public}]}}
    async with EmbeddedServer(settings=conf) as server:
        bus = await connect(BusSettings(servers=(server.url,), nkey_seed_file=path))
        await server.kill()
        path.write_bytes(new.seed)
        await server.start()
        await asyncio.wait_for(bus.ready(), 60)
        await bus.close()


async def test_certificates_that_were_exchanged_while_the_server_was_away_are_used(tmp_path: Path) -> None:
    served, mine = tmp_path / "server", tmp_path / "client"

    def issue(name: str) -> None:
        authority = Authority(tmp_path / name, name)
        for folder, pair in ((served, authority.issue("nats")), (mine, authority.issue("planner"))):
            folder.mkdir(exist_ok=True)
            for kind, path in (("cert", pair.cert), ("key", pair.key), ("ca", authority.own.cert)):
                (folder / kind).write_bytes(path.read_bytes())

    issue("old")
    tls = Tls(str(served / "cert"), str(served / "key"), str(served / "ca"))
    async with EmbeddedServer(settings={"tls": tls.conf()}) as server:
        bus = await connect(
            BusSettings(
                servers=(server.url,),
                tls_ca_file=mine / "ca",
                tls_cert_file=mine / "cert",
                tls_key_file=mine / "key",
            )
        )
        await server.kill()
        issue("new")
        await server.start()
        await asyncio.wait_for(bus.ready(), 60)
        await bus.close()


async def test_credentials_without_a_token_are_refused_instead_of_searched_forever(tmp_path: Path) -> None:
    operator, path = JwtOperator(SUBJECTS), tmp_path / "planner.creds"
    whole = operator.credentials(BUS_ACCOUNT, "planner", planner(SUBJECTS))
    path.write_text(whole[whole.index("-----BEGIN USER NKEY SEED") :])
    async with EmbeddedServer(settings=operator.conf()) as server:
        with pytest.raises(BusUnreachableError, match="no user JWT"):
            await connect(BusSettings(servers=(server.url,), creds_file=path, connect_timeout_s=1))


async def test_a_server_that_is_not_there_is_reported_within_the_time() -> None:
    with pytest.raises(BusUnreachableError, match="cannot reach NATS"):
        await asyncio.wait_for(connect(BusSettings(servers=("nats://127.0.0.1:1",), connect_timeout_s=0.5)), 60)


def test_secrets_are_named_by_files_and_one_identity_is_enough(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds credentials") as caught:
        BusSettings(servers=("nats://me:hunter2@host:4222",))
    assert "hunter2" not in str(caught.value).split("input_value")[0]
    with pytest.raises(ValueError, match="one kind of credentials"):
        BusSettings(user="me", creds_file=tmp_path)
    with pytest.raises(ValueError, match="belong together"):
        BusSettings(tls_cert_file=tmp_path)


async def test_a_password_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    site = SiteAccounts(planners=({"user": "planner", "password": "from-the-environment"},))
    async with EmbeddedServer(settings=accounts(SUBJECTS, site)) as server:
        settings = BusSettings(servers=(server.url,), user="planner", inbox_prefix=inbox_prefix("planner"))
        monkeypatch.setenv("WATTSCALE_NATS_PASSWORD", "from-the-environment")
        bus = await connect(settings)
        assert "from-the-environment" not in repr(bus.settings)
        await bus.close()
        monkeypatch.setenv("WATTSCALE_NATS_PASSWORD", "wrong")
        with pytest.raises(BusRefusedError):
            await connect(settings)
