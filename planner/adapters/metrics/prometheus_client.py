"""Queries a Prometheus over HTTP: with TLS verification, tokens that are read again, time-outs and retries."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bus_schemas.jetstream.tasks.backoff import pause_s
from bus_schemas.regular_files import read_secret

LONGEST_PAUSE_S = 5.0
RETRY_STATUS = frozenset({408, 429, 500, 502, 503, 504})


class PrometheusError(Exception):
    """Prometheus did not answer, or refused the question. One line, without secrets."""


@dataclass(frozen=True, slots=True)
class PrometheusSettings:
    """Address and credentials of a Prometheus. ``params`` go with every query (multi-tenant front ends)."""

    url: str
    bearer_token: str = field(default="", repr=False)
    bearer_token_file: Path | None = None
    ca_file: Path | None = None
    verify_tls: bool = True
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 10.0
    retries: int = 2
    retry_pause_s: float = 0.2


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """One element of an instant vector."""

    labels: Mapping[str, str]
    value: float


class PrometheusClient:
    """Instant queries over one session, opened on first use; ``close`` it once."""

    def __init__(self, settings: PrometheusSettings) -> None:
        self._settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._url = settings.url.rstrip("/") + "/api/v1/query"

    async def query(self, promql: str, at_s: float | None = None) -> list[SeriesRow]:
        """The rows of an instant vector or scalar, as of ``at_s`` on Prometheus' clock. Raises PrometheusError."""
        data = {**self._settings.params, "query": promql}
        if at_s is not None:
            data["time"] = f"{at_s:.3f}"
        body = await self._post(data)
        result = body.get("data", {})
        if result.get("resultType") == "scalar":
            return [SeriesRow({}, _number(result["result"][1]))]
        return [SeriesRow(row["metric"], _number(row["value"][1])) for row in result.get("result", ())]

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _post(self, data: Mapping[str, str]) -> dict[str, Any]:
        for attempt in range(self._settings.retries + 1):
            try:
                async with self._open().post(self._url, data=data, headers=self._auth()) as response:
                    if response.status not in RETRY_STATUS:
                        return await _answer(response)
                    problem = f"answered {response.status}"
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
            if attempt < self._settings.retries:
                await asyncio.sleep(pause_s(self._settings.retry_pause_s, LONGEST_PAUSE_S, attempt))
        raise PrometheusError(f"{self._settings.url}: {problem} ({self._settings.retries + 1} attempts)")

    def _auth(self) -> dict[str, str]:
        """Headers of one request. A token file is read every time: tokens of a cluster change while we run."""
        settings = self._settings
        token = settings.bearer_token
        if settings.bearer_token_file is not None:
            token = read_secret(settings.bearer_token_file)
        headers = dict(settings.headers)
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout_s)
            connector = aiohttp.TCPConnector(ssl=_tls(self._settings), limit=16)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)
        return self._session


def _tls(settings: PrometheusSettings) -> ssl.SSLContext | bool:
    if not settings.verify_tls:
        return False
    if settings.ca_file is None:
        return True
    return ssl.create_default_context(cafile=str(settings.ca_file))


async def _answer(response: aiohttp.ClientResponse) -> dict[str, Any]:
    try:
        body = await response.json(content_type=None)
    except ValueError as error:
        raise PrometheusError(f"{response.url.origin()}: answered {response.status} and no JSON") from error
    if not isinstance(body, dict) or body.get("status") != "success":
        reason = body.get("error", "") if isinstance(body, dict) else ""
        raise PrometheusError(f"{response.url.origin()}: answered {response.status}: {reason or 'no reason given'}")
    return body


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
