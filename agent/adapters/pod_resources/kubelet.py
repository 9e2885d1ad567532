"""Which pod has which GPU, asked of the kubelet: its pod-resources API over a local socket.

The kubelet knows an assignment before any process starts. Each request uses its own connection, so a restarted kubelet
needs no special handling. Answers are never cached: a failed call is an error to the caller.
"""

from __future__ import annotations

from pathlib import Path

from agent.adapters.pod_resources.grpc_unary import CallFailedError, call
from agent.adapters.pod_resources.protobuf import MalformedMessageError, messages, text, texts
from agent.core.devices import Assignment, PodRef
from agent.ports import OwnersUnknownError

SOCKET = Path("/var/lib/kubelet/pod-resources/kubelet.sock")
LIST = "/v1.PodResourcesLister/List"
LARGEST_ANSWER_BYTES = 16 * 1024 * 1024


class PodResources:
    """The kubelet at ``socket``."""

    def __init__(self, socket: Path = SOCKET, *, timeout_s: float = 5.0) -> None:
        self._socket = socket
        self._timeout_s = timeout_s

    def present(self) -> bool:
        """Whether the kubelet's socket exists."""
        return self._socket.is_socket()

    async def list(self) -> list[Assignment]:
        """All devices assigned on this node. Raises OwnersUnknownError if the kubelet cannot be queried."""
        try:
            answer = await call(self._socket, LIST, b"", timeout_s=self._timeout_s, largest=LARGEST_ANSWER_BYTES)
            return assignments(answer)
        except CallFailedError as error:
            raise OwnersUnknownError(
                f"the kubelet's pod-resources API at {self._socket} does not answer: {error}"
            ) from error
        except MalformedMessageError as error:
            raise OwnersUnknownError(f"the kubelet's pod-resources API sent a malformed answer: {error}") from error


def assignments(answer: bytes) -> list[Assignment]:
    """Decode a ``ListPodResourcesResponse``. Field numbers are those of the kubelet's published v1 definition:

    answer.pod_resources = 1; pod: name = 1, namespace = 2, containers = 3;
    container: name = 1, devices = 2;
    devices: device_ids = 2.
    """
    found: list[Assignment] = []
    for pod in messages(answer, 1):
        ref = PodRef(text(pod, 2), text(pod, 1))
        for container in messages(pod, 3):
            name = text(container, 1)
            for devices in messages(container, 2):
                found.extend(Assignment(ref, device, name) for device in texts(devices, 2))
    return found
