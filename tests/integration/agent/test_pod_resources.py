"""The kubelet's pod-resources API over a real gRPC socket."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.adapters.pod_resources import PodResources
from agent.core.devices import PodRef
from agent.ports import OwnersUnknown
from tests.doubles.kubelet import FakeKubelet


async def test_devices_are_listed_with_their_pods_and_a_restarted_kubelet_is_found_again(tmp_path: Path) -> None:
    client = PodResources(tmp_path / "kubelet.sock", timeout_s=2.0)
    assert not client.present()
    async with FakeKubelet(tmp_path) as kubelet:
        kubelet.assigned = {("ns", "a"): {"nvidia.com/gpu": ["GPU-0", "GPU-1"], "example.com/nic": ["nic-0"]}}
        found = await client.list()
        assert client.present()
        assert [(one.pod, one.resource, one.device) for one in found] == [
            (PodRef("ns", "a"), "nvidia.com/gpu", "GPU-0"),
            (PodRef("ns", "a"), "nvidia.com/gpu", "GPU-1"),
            (PodRef("ns", "a"), "example.com/nic", "nic-0"),
        ]
        await kubelet.stop()
        with pytest.raises(OwnersUnknown, match="does not answer"):
            await client.list()
        await kubelet.start()
        kubelet.assigned = {}
        assert await client.list() == []
        kubelet.raw = b"\x0a\xff"
        with pytest.raises(OwnersUnknown):
            await client.list()
    await client.close()
