"""The bus in a container: a server that we did not start ourselves, reached over Docker's own network."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus_schemas import v1
from bus_schemas.client import VirtualConnectorClient
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import connect
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import Outgoing, Publisher
from bus_schemas.jetstream.settings import BusSettings
from deploy.nats.binary import find_server
from tests.doubles import docker_engine
from tests.doubles.docker_engine import engine, why_not

pytestmark = [pytest.mark.long, pytest.mark.root, pytest.mark.xdist_group("docker")]


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A nats-server in a container made from nothing but its static binary: no image is fetched."""
    reason = why_not()
    if reason is not None:
        if os.environ.get("WATTSCALE_REQUIRE_PARTS"):
            pytest.fail(reason)
        pytest.skip(reason)
    with engine(tmp_path_factory.mktemp("docker")) as host, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        patch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
        yield from _container_url()


def _container_url() -> Iterator[str]:
    import docker
    from testcontainers.core.container import DockerContainer

    client = docker.from_env()
    try:
        client.api.import_image_from_data(nats_image(), repository="nats-from-scratch", tag="test")
        command = ["/nats-server", "-js", "-sd", "/data", "-a", "0.0.0.0", "-p", "4222"]
        with DockerContainer("nats-from-scratch:test").with_command(command) as container:
            wrapped = container.get_wrapped_container()
            wrapped.reload()
            networks = wrapped.attrs["NetworkSettings"]["Networks"]
            yield f"nats://{networks['bridge']['IPAddress']}:4222"
    finally:
        client.close()


def nats_image() -> bytes:
    """A root file system with the server and nothing else, as a tar file."""
    binary = find_server().read_bytes()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, body in (("nats-server", binary), ("tmp/.keep", b""), ("data/.keep", b"")):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(body), 0o755
            archive.addfile(entry, io.BytesIO(body))
    return buffer.getvalue()


def test_the_bridge_of_an_engine_that_was_killed_is_taken_away() -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    ended = subprocess.run(["/bin/sh", "-c", "echo $$"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run(["ip", "link", "add", f"wst{ended}", "type", "bridge"], check=True)
    with docker_engine.own_bridge() as bridge:
        assert bridge in _links()
        assert f"wst{ended}" not in _links()
    assert bridge not in _links()


def _links() -> str:
    return subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout


async def test_a_decision_crosses_a_server_in_a_container(server_url: str, tmp_path: Path) -> None:
    bus = await connect(BusSettings(servers=(server_url,), connect_timeout_s=60))
    try:
        await stream_admin.apply(bus)
        leadership = Leadership(bus, "planner", 5.0)
        epoch = await leadership.acquire()
        decision = v1.ScalingDecision(
            time=datetime.now(UTC), deployment="chat", decision_id=0, incarnation="i", epoch=epoch, num_decode_workers=2
        )
        await Publisher(bus, leadership).publish_batch(
            [Outgoing(bus.subjects.decision_scaling("chat"), decision, "d0")]
        )
        client = VirtualConnectorClient(bus.nc, "chat")
        await client.wait(timeout_s=60)
        found = await client.get()
        assert found is not None
        assert found.num_decode_workers == 2
        await client.complete(found)
        with pytest.raises(TimeoutError):
            await client.wait(timeout_s=0.5)
    finally:
        await bus.close()
