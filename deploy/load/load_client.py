"""Sends requests at their times and measures the answers as they stream in."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import aiohttp

from deploy.load.outcomes import RequestOutcome
from deploy.load.schedule import prompt_of
from planner.domain.request import Request

NOT_SENT = "not sent: too many requests in flight"


@dataclass(frozen=True, slots=True)
class LoadTarget:
    """Where requests go. ``key``: a bearer token, empty for none."""

    url: str
    model: str
    chat: bool
    key: str
    timeout_s: float
    max_in_flight: int


class LoadClient:
    """Sends a schedule, whatever the answers do: an open loop. ``outcomes`` grow as requests end."""

    def __init__(self, target: LoadTarget, clock: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._clock = clock
        self.outcomes: list[RequestOutcome] = []
        self.sent = 0
        self.in_flight = 0

    async def run(self, requests: Iterable[Request]) -> None:
        """Send all of them, and wait for their answers. A cancelled run leaves the outcomes so far."""
        headers = {"Authorization": f"Bearer {self._target.key}"} if self._target.key else {}
        timeout = aiohttp.ClientTimeout(total=self._target.timeout_s)
        connector = aiohttp.TCPConnector(limit=0)
        began_s = self._clock()
        session = aiohttp.ClientSession(headers=headers, timeout=timeout, connector=connector)
        async with session, asyncio.TaskGroup() as group:
            for number, request in enumerate(requests):
                due_s = began_s + request.t_s
                await asyncio.sleep(max(0.0, due_s - self._clock()))
                if self.in_flight >= self._target.max_in_flight:
                    self.outcomes.append(RequestOutcome(self._clock() - due_s, failure=NOT_SENT))
                    continue
                self.sent += 1
                self.in_flight += 1
                group.create_task(self._one(session, request, number, due_s))

    async def _one(self, session: aiohttp.ClientSession, request: Request, number: int, due_s: float) -> None:
        try:
            self.outcomes.append(await self._asked(session, request, number, due_s))
        finally:
            self.in_flight -= 1

    async def _asked(
        self, session: aiohttp.ClientSession, request: Request, number: int, due_s: float
    ) -> RequestOutcome:
        prompt = prompt_of(request, number)
        asked = {"messages": [{"role": "user", "content": prompt}]} if self._target.chat else {"prompt": prompt}
        body = {
            **asked,
            "model": self._target.model,
            "max_tokens": request.osl,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        path = "/v1/chat/completions" if self._target.chat else "/v1/completions"
        sent_s = self._clock()
        late_s = sent_s - due_s
        try:
            async with session.post(self._target.url + path, json=body) as response:
                if response.status != 200:
                    return RequestOutcome(late_s, failure=f"status {response.status}")
                return await self._streamed(response, sent_s, late_s)
        except TimeoutError:
            return RequestOutcome(late_s, failure=f"no whole answer within {self._target.timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return RequestOutcome(late_s, failure=type(error).__name__)

    async def _streamed(self, response: aiohttp.ClientResponse, sent_s: float, late_s: float) -> RequestOutcome:
        first_s = last_s = 0.0
        pieces, tokens = 0, None
        async for line in response.content:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                if not pieces:
                    return RequestOutcome(late_s, failure="an answer without a token")
                return RequestOutcome(late_s, first_s - sent_s, last_s - sent_s, tokens or pieces)
            try:
                event = json.loads(data)
                usage, choices = event.get("usage"), event.get("choices") or []
            except (ValueError, AttributeError):
                return RequestOutcome(late_s, failure="an event that is not JSON")
            if usage:
                tokens = int(usage.get("completion_tokens") or 0)
            if choices:
                last_s = self._clock()
                first_s = first_s or last_s
                pieces += 1
        return RequestOutcome(late_s, failure="a stream that ended without [DONE]")
