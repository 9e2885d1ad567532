"""The API server through kubernetes-asyncio: reads, watches, ``/scale``, access reviews and events.

Owns the client and its credentials. Never retries: the caller knows what a failure means. Imported only where the
connector runs, because the library holds some 40 MB of models.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import aiohttp
from kubernetes_asyncio import client, config

from agent.adapters.kubernetes.api import LARGEST_LINE_BYTES, ApiError, SilentError
from agent.core.pod_limits import ANNOTATION
from agent.core.scaling.kubernetes.field_writers import OWN
from agent.core.scaling.kubernetes.needed_rights import Right
from agent.core.scaling.kubernetes.power_limits import AnnotateLimit
from agent.core.scaling.kubernetes.scale_targets import ScaleTarget

MERGE = "application/merge-patch+json"
TIMEOUT_S = 20.0
FIRST_REFUSAL = 400
FAILURES = (client.ApiException, aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError, AttributeError)
"""What the library raises; AttributeError is how it ends after a TLS failure."""


class NoClusterError(Exception):
    """No way to reach an API server; the message says what was tried."""


class ClusterClient:
    """``async with await ClusterClient.open(...) as cluster``. Every call raises ApiError."""

    def __init__(self, api: Any) -> None:
        self._api = api
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._reviews = client.AuthorizationV1Api(api)

    @classmethod
    async def open(cls, kubeconfig: Path | None) -> Self:
        """By a kubeconfig, else as a pod by its service account, else by KUBECONFIG. Raises NoClusterError."""
        settings = client.Configuration()
        try:
            if kubeconfig is not None:
                await config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)
            else:
                try:
                    config.load_incluster_config(client_configuration=settings)
                except config.ConfigException:
                    await config.load_kube_config(client_configuration=settings)
        except (config.ConfigException, OSError, ValueError, TypeError) as error:
            raise NoClusterError(f"no way to an API server: {error}") from error
        return cls(client.ApiClient(settings))

    @property
    def address(self) -> str:
        """The API server's address."""
        return str(self._api.configuration.host)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """One object or list."""
        try:
            async with await self._open(path, query or {}, aiohttp.ClientTimeout(total=TIMEOUT_S)) as answer:
                found: dict[str, Any] = json.loads(await answer.read())
                return found
        except FAILURES as error:
            raise _refusal(path, error) from error

    async def send(
        self,
        method: Literal["POST", "PUT", "PATCH", "DELETE"],
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Create, replace, merge into or delete one object of any kind; the answer. Raises ApiError."""
        own = {} if method == "DELETE" else {"fieldManager": OWN}
        limits = aiohttp.ClientTimeout(total=TIMEOUT_S)
        try:
            async with await self._open(path, {**own, **(query or {})}, limits, method, body) as answer:
                found: dict[str, Any] = json.loads(await answer.read())
                return found
        except FAILURES as error:
            raise _refusal(f"{method} {path}", error) from error

    async def lines(
        self, path: str, query: Mapping[str, str], *, silence_s: float, opened: Callable[[], None] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """A watch: one JSON object per line, until the server ends it. SilentError after ``silence_s``."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT_S, sock_read=silence_s)
        try:
            async with await self._open(path, query, limits) as answer:
                if opened is not None:
                    opened()
                waiting = b""
                async for part in answer.content.iter_any():
                    *whole, waiting = (waiting + part).split(b"\n")
                    if len(waiting) > LARGEST_LINE_BYTES:
                        raise ApiError(0, f"watch {path}: a line is over {LARGEST_LINE_BYTES} bytes")
                    for line in filter(None, whole):
                        yield json.loads(line)
        except aiohttp.SocketTimeoutError as error:
            raise SilentError(0, f"{path}: {error}") from error
        except FAILURES as error:
            raise _refusal(path, error) from error

    async def _open(
        self,
        path: str,
        query: Mapping[str, str],
        limits: aiohttp.ClientTimeout,
        method: str = "GET",
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        headers = {"Accept": "application/json"}
        if method != "GET":
            headers["Content-Type"] = MERGE if method == "PATCH" else "application/json"
        answer = await self._api.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params=headers,
            body=None if body is None else dict(body),
            auth_settings=["BearerToken"],
            _preload_content=False,
            _return_http_data_only=True,
            _request_timeout=limits,
        )
        if answer.status >= FIRST_REFUSAL:
            refusal = client.ApiException(status=answer.status, reason=answer.reason)
            refusal.body = (await answer.read()).decode(errors="replace")
            raise refusal
        return answer

    async def scale(self, target: ScaleTarget, replicas: int, version: str) -> tuple[int, str]:
        """Write the wanted count over the object's ``version``; the count and version that it then has.

        Raises ApiError with 409 where the object has changed since.
        """
        body = {"metadata": {"resourceVersion": version}, "spec": {"replicas": replicas}}
        where = (target.group, target.version, target.namespace, target.resource, target.name)
        try:
            found = await self._custom.patch_namespaced_custom_object_scale(
                *where, body, field_manager=OWN, _content_type=MERGE, _request_timeout=TIMEOUT_S
            )
            # A count of zero is left out.
            return int(found["spec"].get("replicas", 0)), str(found["metadata"]["resourceVersion"])
        except FAILURES as error:
            raise _refusal(f"scale of {target}", error) from error

    async def restart(self, graph: ScaleTarget, restart: Mapping[str, Any], version: str) -> None:
        """Write a graph's ``spec.restart`` over its ``version``. Raises ApiError: 409 where it has changed since."""
        body = {"metadata": {"resourceVersion": version}, "spec": {"restart": dict(restart)}}
        where = (graph.group, graph.version, graph.namespace, graph.resource, graph.name)
        try:
            await self._custom.patch_namespaced_custom_object(
                *where, body, field_manager=OWN, _content_type=MERGE, _request_timeout=TIMEOUT_S
            )
        except FAILURES as error:
            raise _refusal(f"restart of {graph}", error) from error

    async def annotate(self, namespace: str, limit: AnnotateLimit) -> None:
        """Write or remove one pod's power limit. Raises ApiError, also where a pod of the same name is another one."""
        value = None if limit.watts is None else str(limit.watts)
        body = {"metadata": {"uid": limit.uid, "annotations": {ANNOTATION: value}}}
        try:
            await self._core.patch_namespaced_pod(
                limit.pod, namespace, body, field_manager=OWN, _content_type=MERGE, _request_timeout=TIMEOUT_S
            )
        except FAILURES as error:
            raise _refusal(f"power limit of pod {limit.pod}", error) from error

    async def allowed(self, right: Right) -> bool:
        """Whether this account has a right."""
        about = {
            "namespace": right.namespace,
            "verb": right.verb,
            "group": right.group,
            "resource": right.resource,
            "subresource": right.subresource,
            "name": right.name,
        }
        body = {"spec": {"resourceAttributes": about}}
        try:
            found = await self._reviews.create_self_subject_access_review(body, _request_timeout=TIMEOUT_S)
            return bool(found.status.allowed)
        except FAILURES as error:
            raise _refusal("access review", error) from error

    async def event(self, namespace: str, body: Mapping[str, Any]) -> None:
        """Write an Event."""
        try:
            await self._core.create_namespaced_event(
                namespace, dict(body), field_manager=OWN, _request_timeout=TIMEOUT_S
            )
        except FAILURES as error:
            raise _refusal("event", error) from error


def _refusal(what: str, error: Exception) -> ApiError:
    """The error of any layer as one line, with the status that the server gave."""
    if not isinstance(error, client.ApiException):
        return ApiError(0, f"{what}: {str(error) or type(error).__name__}")
    text = str(error.body or error.reason)
    try:
        text = str(json.loads(text).get("message", text))
    except (ValueError, AttributeError):
        pass  # Not a Status object: a path that is not served is answered in plain text.
    return ApiError(int(error.status or 0), text.strip()[:500])
