"""Reads the bodies of OpenAI's completions and chat completions. Pure.

What an engine without a model cannot honour is refused by name: several choices, log probabilities, tools. Sampling
parameters are accepted, because every client sends them, and change nothing: the words follow from seed and prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.engine.answers import tokenize

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's, for completions; a chat's answer is bounded by the context."""
REFUSED: Mapping[str, Callable[[Any], bool]] = {
    "n": lambda value: value not in (None, 1),
    "best_of": lambda value: value not in (None, 1),
    "logprobs": lambda value: value not in (None, False, 0),
    "top_logprobs": bool,
    "prompt_logprobs": bool,
    "echo": bool,
    "suffix": bool,
    "tools": bool,
    "stop": bool,
    "response_format": lambda value: bool(value) and value != {"type": "text"},
}


class RequestRefusedError(Exception):
    """A body that is not valid here: ``str()`` says why, ``param`` names the field."""

    def __init__(self, text: str, param: str | None = None, *, status: int = 400) -> None:
        super().__init__(text)
        self.param = param
        self.status = status


@dataclass(frozen=True, slots=True)
class AskedFor:
    """What one request asks for. ``max_tokens``: None where only the context bounds it."""

    chat: bool
    prompt: tuple[str, ...]
    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    stream: bool
    include_usage: bool
    seed: int
    remote_decode: bool
    """A prefill worker's share: compute the prompt, and name where its KV entries are."""
    remote_prefill: bool
    """A decode worker's share: the prompt's KV entries are elsewhere already."""


def asked_for(body: object, model: str, *, chat: bool) -> AskedFor:
    """A request's fields. Raises RequestRefusedError."""
    if not isinstance(body, dict):
        raise RequestRefusedError("the body must be a JSON object")
    if (named := body.get("model")) not in (None, model):
        raise RequestRefusedError(f"no model {named!r} here; this engine serves {model!r}", "model", status=404)
    for name, refused in REFUSED.items():
        if refused(body.get(name)):
            raise RequestRefusedError(f"{name} is not supported: this engine has no model", name)
    stream = _flag(body, "stream")
    options = body.get("stream_options") or {}
    if not isinstance(options, dict) or (options and not stream):
        raise RequestRefusedError("stream_options is an object that goes with stream: true", "stream_options")
    transfer = body.get("kv_transfer_params") or {}
    if not isinstance(transfer, dict):
        raise RequestRefusedError("kv_transfer_params must be an object", "kv_transfer_params")
    limit = "max_completion_tokens" if chat and body.get("max_completion_tokens") is not None else "max_tokens"
    most = _whole(body, limit, 1, None if chat else DEFAULT_COMPLETION_TOKENS)
    prompt = _messages(body) if chat else _prompt(body)
    if not prompt:
        raise RequestRefusedError("the prompt has no tokens", "messages" if chat else "prompt")
    return AskedFor(
        chat=chat,
        prompt=tuple(prompt),
        max_tokens=most,
        min_tokens=_whole(body, "min_tokens", 0, 0) or 0,
        ignore_eos=_flag(body, "ignore_eos"),
        stream=stream,
        include_usage=_flag(options, "include_usage"),
        seed=_whole(body, "seed", -(2**63), 0) or 0,
        remote_decode=_flag(transfer, "do_remote_decode"),
        remote_prefill=_flag(transfer, "do_remote_prefill"),
    )


def _flag(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestRefusedError(f"{name} must be true or false", name)
    return bool(value)


def _whole(body: Mapping[str, Any], name: str, least: int, default: int | None) -> int | None:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise RequestRefusedError(f"{name} must be a whole number of at least {least}", name)
    return value


def _prompt(body: Mapping[str, Any]) -> list[str]:
    """A text, or token ids, which are words here like any other."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return tokenize(prompt)
    if isinstance(prompt, list) and all(isinstance(one, int) and not isinstance(one, bool) for one in prompt):
        return list(map(str, prompt))
    raise RequestRefusedError("prompt must be one text, or one list of token ids", "prompt")


def _messages(body: Mapping[str, Any]) -> list[str]:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
        raise RequestRefusedError("messages must be a list of objects, each with role and content", "messages")
    tokens = []
    for message in messages:
        role = message.get("role")
        if not isinstance(role, str):
            raise RequestRefusedError("each message needs a role", "messages")
        tokens += [f"<{role}>", *tokenize(_content(message.get("content")))]
    return tokens


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else None
    if parts is not None and all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
        return " ".join(part["text"] for part in parts)
    raise RequestRefusedError("a message's content must be text, or a list of parts with text", "messages")
