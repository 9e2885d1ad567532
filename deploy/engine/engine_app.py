"""The engine's HTTP interface: OpenAI's two calls, and what an orchestrator needs to start, watch and drain it."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from deploy.engine.answers import Answer, answer_to
from deploy.engine.continuous_batch import Generation
from deploy.engine.engine_loop import EngineLoop, EngineStage
from deploy.engine.kv_blocks import block_hashes
from deploy.engine.openai_requests import AskedFor, RequestRefusedError, asked_for
from deploy.engine.openai_responses import DONE, ResponseHead, error_body, usage_of

METRICS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
LARGEST_BODY = 64 * 2**20
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class EngineModel:
    """What the engine serves. ``mean_answer_tokens``: mean length of answers that end by themselves."""

    name: str
    max_model_len: int
    seed: int
    mean_answer_tokens: float


class EngineApp:
    """The pages and calls of one engine. ``engine_id`` names it to the decode worker that takes its prompts over."""

    def __init__(self, model: EngineModel, loop: EngineLoop, engine_id: str) -> None:
        self._model = model
        self._loop = loop
        self._engine_id = engine_id
        self._open = 0
        """Requests whose answer is not complete on the wire."""
        self.emptied = asyncio.Event()
        """Set once the engine drains and every answer is complete on the wire."""

    def application(self) -> web.Application:
        """The application with its routes."""
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_post("/v1/completions", self._counted(self._completions))
        app.router.add_post("/v1/chat/completions", self._counted(self._chat))
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_post("/drain", self._drain)
        return app

    def drain(self) -> None:
        """Take no new request, and set ``emptied`` when those that are here are answered."""
        self._loop.stage = EngineStage.DRAINING
        self._check_emptied()

    def _check_emptied(self) -> None:
        if self._loop.stage is EngineStage.DRAINING and not self._open:
            self.emptied.set()

    def _counted(self, handler: Handler) -> Handler:
        """``handler``, refused unless the engine serves, with its mistakes as OpenAI's errors."""

        async def handle(request: web.Request) -> web.StreamResponse:
            if self._loop.stage is not EngineStage.SERVING:
                return _error(f"the engine is {self._loop.stage}", "ServiceUnavailableError", status=503)
            self._open += 1
            try:
                return await handler(request)
            except RequestRefusedError as error:
                kind = "NotFoundError" if error.status == 404 else "BadRequestError"
                return _error(str(error), kind, error.param, error.status)
            finally:
                self._open -= 1
                self._check_emptied()

        return handle

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=True)

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        try:
            body = await request.json()
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RequestRefusedError(f"the body is not JSON: {error}") from None
        asked = asked_for(body, self._model.name, chat=chat)
        answer = self._answer_of(asked)
        generation = Generation(
            prompt_tokens=len(asked.prompt),
            answer_tokens=answer.tokens,
            hashes=block_hashes(asked.prompt),
            finish_reason=answer.finish_reason,
            remote_prefill=asked.remote_prefill,
        )
        prefix = "chatcmpl" if chat else "cmpl"
        head = ResponseHead(f"{prefix}-{uuid.uuid4().hex}", self._model.name, int(time.time()), chat)
        try:
            if asked.stream:
                return await self._streamed(request, asked, head, answer, generation)
            return await self._whole(request, asked, head, answer, generation)
        finally:
            self._loop.abort(generation)

    def _answer_of(self, asked: AskedFor) -> Answer:
        room = self._model.max_model_len - len(asked.prompt)
        most = room if asked.max_tokens is None else asked.max_tokens
        if room < 1 or most > room:
            raise RequestRefusedError(
                f"the context is {self._model.max_model_len} tokens; prompt and max_tokens are"
                f" {len(asked.prompt)} and {most}",
                "max_tokens",
            )
        return answer_to(
            asked.prompt,
            self._model.seed + asked.seed,
            max_tokens=most,
            min_tokens=asked.min_tokens,
            mean_tokens=self._model.mean_answer_tokens,
            ignore_eos=asked.ignore_eos,
        )

    async def _whole(
        self, request: web.Request, asked: AskedFor, head: ResponseHead, answer: Answer, generation: Generation
    ) -> web.StreamResponse:
        feed = self._loop.submit(generation)
        while not await feed.wait():
            pass
        extra = {}
        if asked.remote_decode:
            handed_over = {"do_remote_prefill": True, "do_remote_decode": False, "remote_engine_id": self._engine_id}
            extra["kv_transfer_params"] = handed_over
        usage = usage_of(generation.prompt_tokens, generation.done, generation.cached_tokens)
        body = head.whole(answer.text(), answer.finish_reason, usage, extra)
        # Sent here and not after returning, so that a request counts as open until its last byte has left.
        response = web.json_response(body)
        await response.prepare(request)
        await response.write_eof()
        return response

    async def _streamed(
        self, request: web.Request, asked: AskedFor, head: ResponseHead, answer: Answer, generation: Generation
    ) -> web.StreamResponse:
        feed = self._loop.submit(generation)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache"}
        )
        await response.prepare(request)
        sent, last = 0, False
        while not last:
            last = await feed.wait()
            events = []
            for index in range(sent, generation.done):
                reason = answer.finish_reason if index == answer.tokens - 1 else None
                events.append(head.event(answer.word(index), reason, first=index == 0))
            sent = generation.done
            if last and asked.include_usage:
                usage = usage_of(generation.prompt_tokens, generation.done, generation.cached_tokens)
                events.append(head.usage_event(usage))
            await response.write(b"".join(events) + (DONE if last else b""))
        await response.write_eof()
        return response

    async def _models(self, _: web.Request) -> web.Response:
        model = {"id": self._model.name, "object": "model", "owned_by": "wattscale"}
        return web.json_response({"object": "list", "data": [model | {"max_model_len": self._model.max_model_len}]})

    async def _health(self, _: web.Request) -> web.Response:
        serving = self._loop.stage is EngineStage.SERVING
        return web.Response(text=f"{self._loop.stage}\n", status=200 if serving else 503)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._loop.telemetry.page(), headers={"Content-Type": METRICS_TEXT})

    async def _drain(self, _: web.Request) -> web.Response:
        self.drain()
        return web.json_response({"stage": self._loop.stage, "in_flight": self._open})


def _error(text: str, kind: str, param: str | None = None, status: int = 400) -> web.Response:
    headers = {"Retry-After": "1"} if status == 503 else {}
    return web.json_response(error_body(text, kind, param, status), status=status, headers=headers)
