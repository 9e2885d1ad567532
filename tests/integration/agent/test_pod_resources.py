"""The kubelet's pod-resources API over a real gRPC socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.adapters.pod_resources.grpc_unary import CallFailedError, call
from agent.adapters.pod_resources.kubelet import PodResources
from agent.core.devices import PodRef
from agent.ports import OwnersUnknownError
from tests.doubles.kubelet import FakeKubelet


async def test_devices_are_listed_with_their_pods_and_a_restarted_kubelet_is_found_again(tmp_path: Path) -> None:
    client = PodResources(tmp_path / "kubelet.sock", timeout_s=20.0)
    assert not client.present()
    async with FakeKubelet(tmp_path) as kubelet:
        kubelet.assigned = {("ns", "a"): {"nvidia.com/gpu": ["GPU-0", "GPU-1"], "example.com/nic": ["nic-0"]}}
        found = await client.list()
        assert client.present()
        assert [(one.pod, one.device) for one in found] == [
            (PodRef("ns", "a"), "GPU-0"),
            (PodRef("ns", "a"), "GPU-1"),
            (PodRef("ns", "a"), "nic-0"),
        ]
        await kubelet.stop()
        with pytest.raises(OwnersUnknownError, match="does not answer"):
            await client.list()
        await kubelet.start()
        kubelet.assigned = {}
        assert await client.list() == []
        kubelet.raw = b"\x0a\xff"
        with pytest.raises(OwnersUnknownError):
            await client.list()


async def test_long_answers_are_read_whole(tmp_path: Path) -> None:
    async with FakeKubelet(tmp_path) as kubelet:
        kubelet.assigned = {("ns", f"pod-{number}"): {"nvidia.com/gpu": ["GPU-" + "x" * 100]} for number in range(5000)}
        assert len(await PodResources(kubelet.socket, timeout_s=60.0).list()) == 5000


async def test_a_server_that_knows_no_such_call_counts_as_refusing(tmp_path: Path) -> None:
    async with FakeKubelet(tmp_path) as kubelet:
        with pytest.raises(CallFailedError, match="refused"):
            await call(kubelet.socket, "/v1.Other/Method", b"", timeout_s=20.0, largest=1000)


async def test_an_answer_that_never_comes_is_not_waited_for(tmp_path: Path) -> None:
    hung_up = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()
        hung_up.set()

    socket = tmp_path / "silent.sock"
    async with await asyncio.start_unix_server(silent, str(socket)):
        with pytest.raises(OwnersUnknownError, match="no answer within"):
            await PodResources(socket, timeout_s=0.2).list()
        await hung_up.wait()
