"""Which pod has which GPU, asked of the kubelet: its pod-resources API over a local socket.

Owns one gRPC channel, made again when the kubelet restarts. It knows an assignment before any process starts. Must
never keep an old answer as a new one: a call that fails is an error to the caller.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.adapters.protobuf import MalformedMessage, messages, text, texts
from agent.core.devices import Assignment, PodRef
from agent.ports import OwnersUnknown

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
LIST = "/v1.PodResourcesLister/List"
LARGEST_ANSWER_BYTES = 16 * 1024 * 1024


class PodResources:
    """The kubelet at ``socket``."""

    def __init__(self, socket: Path = SOCKET, *, timeout_s: float = 5.0) -> None:
        self._socket = socket
        self._timeout_s = timeout_s
        self._channel: Any = None

    def present(self) -> bool:
        """Whether there is a kubelet to ask."""
        return self._socket.is_socket()

    async def list(self) -> list[Assignment]:
        """All devices handed out on this node. Raises OwnersUnknown when the kubelet can not be asked."""
        import grpc

        if self._channel is None:
            options = [
                ("grpc.max_receive_message_length", LARGEST_ANSWER_BYTES),
                ("grpc.enable_http_proxy", 0),
                ("grpc.use_local_subchannel_pool", 1),
            ]
            self._channel = grpc.aio.insecure_channel(f"unix://{self._socket}", options=options)
        call = self._channel.unary_unary(LIST, request_serializer=_nothing)
        try:
            answer: bytes = await call(None, timeout=self._timeout_s)
            # Decoded here, not by gRPC, which would turn an exception into an empty answer.
            return assignments(answer)
        except grpc.aio.AioRpcError as error:
            await self.close()
            detail = f"{error.code().name}: {error.details()}"
            raise OwnersUnknown(
                f"the kubelet's pod-resources API at {self._socket} does not answer ({detail})"
            ) from error
        except MalformedMessage as error:
            raise OwnersUnknown(f"the kubelet's pod-resources API answered with no message: {error}") from error

    async def close(self) -> None:
        """Let the channel go; the next call makes a new one, to whichever kubelet listens then."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


def _nothing(_: object) -> bytes:
    return b""


def assignments(answer: bytes) -> list[Assignment]:
    """Decode a ``ListPodResourcesResponse``. Field numbers are those of the kubelet's published v1 definition:

    answer.pod_resources = 1; pod: name = 1, namespace = 2, containers = 3; container: name = 1, devices = 2;
    devices: resource_name = 1, device_ids = 2.
    """
    found: list[Assignment] = []
    for pod in messages(answer, 1):
        ref = PodRef(text(pod, 2), text(pod, 1))
        for container in messages(pod, 3):
            name = text(container, 1)
            for devices in messages(container, 2):
                resource = text(devices, 1)
                found.extend(Assignment(ref, name, resource, device) for device in texts(devices, 2))
    return found
