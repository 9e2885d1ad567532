"""Asks one engine over OpenAI's interface, and notes when each piece of an answer arrives.

Prompts are lists of token ids, so that their length is exact for any model and no two share a prefix by chance.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from planner.profiler.analysis.decode_window import StreamedAnswer

LOWEST_ID, HIGHEST_ID = 1000, 30_000
"""Token ids of prompts: ordinary tokens in every vocabulary in use, above the reserved ones."""
PAGE_BYTES = 8 << 20
FIRST_TOKENS = ("vllm:time_to_first_token_seconds", "sglang:time_to_first_token_seconds")
"""Histograms of engines."""


class EngineError(Exception):
    """The engine cannot be profiled, or did not answer as it must. The message is one line."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the engine says of itself: None where it does not. ``max_context`` and ``max_kv_tokens`` in tokens."""

    model: str
    max_context: int | None
    max_kv_tokens: int | None


@dataclass(frozen=True, slots=True)
class FirstTokens:
    """How many first tokens an engine has made, and the sum of their times by its own clock."""

    count: float
    sum_s: float

    def since(self, before: FirstTokens) -> float | None:
        """Milliseconds of the only one since; None where there were none or several."""
        return (self.sum_s - before.sum_s) * 1000.0 if self.count - before.count == 1 else None


class EngineClient:
    """A client of one engine. ``url`` has no ``/v1``; ``key``: a bearer token, empty for none."""

    def __init__(
        self, url: str, *, key: str = "", timeout_s: float = 600.0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self.url = url
        self._key = key
        self._timeout_s = timeout_s
        self.clock = clock
        self._session: aiohttp.ClientSession | None = None
        self.model = ""

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._session = aiohttp.ClientSession(
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            connector=aiohttp.TCPConnector(limit=0),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def facts(self, model: str | None) -> EngineFacts:
        """The engine's model and limits; ``model`` chooses one where it serves several. Raises EngineError."""
        served = await self._json("/v1/models")
        known = {str(each["id"]): each for each in served.get("data", []) if isinstance(each, dict) and "id" in each}
        if not known:
            raise EngineError(f"{self.url}: /v1/models names no model")
        if model is None and len(known) > 1:
            raise EngineError(f"{self.url}: it serves {', '.join(known)}; choose one with --model")
        name = model or next(iter(known))
        if name not in known:
            raise EngineError(f"{self.url}: it serves {', '.join(known)}, not {name}")
        self.model = name
        longest = known[name].get("max_model_len")
        page = await self._text("/metrics")
        kv_tokens = kv_tokens_on(page) if page is not None else None
        if kv_tokens is None:
            kv_tokens = await self._sglang_kv_tokens()
        return EngineFacts(name, longest if isinstance(longest, int) else None, kv_tokens)

    async def is_healthy(self) -> bool:
        """Whether it takes requests."""
        try:
            async with self._open.get(self.url + "/health") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def drawn_watts(self, series: str) -> float | None:
        """The sum of a gauge on the engine's metrics page; None where it has none."""
        page = await self._text("/metrics")
        values = [value for _, value in _samples(page or "", series)]
        return sum(values) if values else None

    async def first_tokens(self) -> FirstTokens | None:
        """What the engine's metrics page states; None where it states none."""
        page = await self._text("/metrics")
        return first_tokens_on(page) if page is not None else None

    async def ask(self, prompt: list[int], answer_tokens: int) -> StreamedAnswer:
        """The answer of exactly ``answer_tokens`` tokens to a prompt, with its instants. Raises EngineError."""
        body = {
            "model": self.model,
            "prompt": prompt,
            "max_tokens": answer_tokens,
            "min_tokens": answer_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        content = json.dumps(body).encode()
        sent_s = self.clock()
        try:
            async with self._open.post(
                self.url + "/v1/completions", data=content, headers={"Content-Type": "application/json"}
            ) as response:
                if response.status != 200:
                    text = " ".join((await response.text())[:300].split())
                    raise EngineError(f"{self.url}: status {response.status} to a prompt of {len(prompt)}: {text}")
                return await self._streamed(response, sent_s, answer_tokens)
        except TimeoutError:
            raise EngineError(f"{self.url}: no whole answer within {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise EngineError(f"{self.url}: {str(error) or type(error).__name__}") from error

    async def _streamed(self, response: aiohttp.ClientResponse, sent_s: float, wanted: int) -> StreamedAnswer:
        piece_s: list[float] = []
        usage: Mapping[str, Any] = {}
        async for line in response.content:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return self._answer(sent_s, piece_s, usage, wanted)
            try:
                event = json.loads(data)
                usage = event.get("usage") or usage
                if event.get("choices"):
                    piece_s.append(self.clock())
            except (ValueError, AttributeError):
                raise EngineError(f"{self.url}: an event that is not a JSON object: {data[:80]!r}") from None
        raise EngineError(f"{self.url}: a stream that ended without [DONE]")

    def _answer(self, sent_s: float, piece_s: list[float], usage: Mapping[str, Any], wanted: int) -> StreamedAnswer:
        try:
            prompt, tokens = int(usage["prompt_tokens"]), int(usage["completion_tokens"])
        except (KeyError, TypeError, ValueError):
            raise EngineError(f"{self.url}: it states no usage, so the length of its answers is not known") from None
        if tokens != wanted or not piece_s:
            raise EngineError(f"{self.url}: {wanted} tokens were asked for and {tokens} came; it must obey ignore_eos")
        details = usage.get("prompt_tokens_details") or {}
        cached = details.get("cached_tokens")
        # A last piece without text closes some engines' streams: pieces beyond the tokens are not tokens.
        return StreamedAnswer(
            sent_s, tuple(piece_s[:tokens]), prompt, tokens, int(cached) if cached is not None else None
        )

    async def _sglang_kv_tokens(self) -> int | None:
        try:
            info = await self._json("/get_server_info")
        except EngineError:
            return None
        tokens = info.get("max_total_num_tokens")
        return tokens if isinstance(tokens, int) and tokens > 0 else None

    async def _json(self, path: str) -> dict[str, Any]:
        text = await self._text(path)
        if text is None:
            raise EngineError(f"{self.url}{path}: no answer; is this the address of an OpenAI server, without /v1?")
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise EngineError(f"{self.url}{path}: its answer is not a JSON object")
        return found

    async def _text(self, path: str) -> str | None:
        """The content of a page; None where there is none."""
        try:
            async with self._open.get(self.url + path) as response:
                if response.status in (401, 403):
                    raise EngineError(f"{self.url}{path}: status {response.status}: the key is missing or refused")
                if response.status != 200:
                    return None
                return (await response.content.read(PAGE_BYTES)).decode(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the client is used as a context manager")
        return self._session


def fresh_prompt(tokens: int, rng: random.Random) -> list[int]:
    """A prompt that no other shares a block with."""
    return rng.choices(range(LOWEST_ID, HIGHEST_ID), k=tokens)


def first_tokens_on(page: str) -> FirstTokens | None:
    """First tokens as a metrics page counts them."""
    for name in FIRST_TOKENS:
        counts, sums = (_samples(page, f"{name}_{what}") for what in ("count", "sum"))
        if counts and sums:
            return FirstTokens(sum(value for _, value in counts), sum(value for _, value in sums))
    return None


def kv_tokens_on(page: str) -> int | None:
    """Tokens of the KV cache, as a metrics page states them: vLLM's ``cache_config_info``, or SGLang's gauge."""
    for labels, _ in _samples(page, "vllm:cache_config_info"):
        blocks, size = labels.get("num_gpu_blocks", ""), labels.get("block_size", "")
        if blocks.isdecimal() and size.isdecimal() and int(blocks):
            return int(blocks) * int(size)
    for _, value in _samples(page, "sglang:max_total_num_tokens"):
        return int(value)
    return None


def _samples(page: str, name: str) -> list[tuple[dict[str, str], float]]:
    try:
        return [
            (sample.labels, sample.value)
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == name
        ]
    except ValueError:
        return []
