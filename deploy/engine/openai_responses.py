"""Forms OpenAI's answers: whole, streamed, and errors. Pure: identifiers and times are arguments."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What every part of one response repeats. ``created`` in Unix seconds."""

    response_id: str
    model: str
    created: int
    chat: bool

    def whole(self, text: str, finish_reason: str, usage: dict[str, Any], extra: dict[str, Any]) -> dict[str, Any]:
        """The body of a response that is not streamed; ``extra``: further fields at its top."""
        choice = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        return {
            **self._head("chat.completion" if self.chat else "text_completion"),
            "choices": [{"index": 0, **choice, "logprobs": None, "finish_reason": finish_reason}],
            "usage": usage,
            **extra,
        }

    def event(self, text: str, finish_reason: str | None, *, first: bool) -> bytes:
        """One event of a stream, with a piece of the text."""
        delta = (
            {"delta": {**({"role": "assistant"} if first else {}), "content": text}} if self.chat else {"text": text}
        )
        choices = [{"index": 0, **delta, "logprobs": None, "finish_reason": finish_reason}]
        return sse({**self._head(self._streamed), "choices": choices})

    def usage_event(self, usage: dict[str, Any]) -> bytes:
        """The event after the last piece, for clients that asked for the usage."""
        return sse({**self._head(self._streamed), "choices": [], "usage": usage})

    @property
    def _streamed(self) -> str:
        return "chat.completion.chunk" if self.chat else "text_completion"

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.response_id, "object": kind, "created": self.created, "model": self.model}


def sse(body: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def usage_of(prompt_tokens: int, answer_tokens: int, cached_tokens: int) -> dict[str, Any]:
    """OpenAI's usage."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": answer_tokens,
        "total_tokens": prompt_tokens + answer_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def error_body(text: str, kind: str, param: str | None = None, code: int = 400) -> dict[str, Any]:
    """OpenAI's error."""
    return {"error": {"message": text, "type": kind, "param": param, "code": code}}
