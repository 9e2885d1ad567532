"""Bodies of OpenAI's calls: what is read, and what is refused by name."""

from __future__ import annotations

import pytest

from deploy.engine.openai_requests import RequestRefusedError, asked_for

USER = {"role": "user", "content": "hello there"}


def test_a_completion_takes_a_text_or_token_ids():
    assert asked_for({"prompt": "a b"}, "demo", chat=False).prompt == ("a", "b")
    assert asked_for({"prompt": [7, 8, 9]}, "demo", chat=False).prompt == ("7", "8", "9")
    assert asked_for({"prompt": "a b"}, "demo", chat=False).max_tokens == 16


def test_a_chat_takes_texts_and_parts_and_its_context_bounds_the_answer():
    parts = {"role": "user", "content": [{"type": "text", "text": "one two"}]}
    asked = asked_for({"messages": [USER, parts], "temperature": 0.5}, "demo", chat=True)
    assert asked.prompt == ("<user>", "hello", "there", "<user>", "one", "two")
    assert asked.max_tokens is None
    assert asked_for({"messages": [USER], "max_completion_tokens": 5}, "demo", chat=True).max_tokens == 5


def test_the_two_halves_of_a_disaggregated_request_differ():
    for name in ("do_remote_decode", "do_remote_prefill"):
        asked = asked_for({"prompt": "a", "kv_transfer_params": {name: True}}, "demo", chat=False)
        assert (asked.remote_decode, asked.remote_prefill) == (name == "do_remote_decode", name == "do_remote_prefill")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ([], None),
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "a", "stream": "yes"}, "stream"),
        ({"prompt": "a", "stream_options": {"include_usage": True}}, "stream_options"),
        ({"prompt": "a", "n": 2}, "n"),
        ({"prompt": "a", "logprobs": 5}, "logprobs"),
        ({"prompt": "a", "stop": ["x"]}, "stop"),
        ({"prompt": "a", "kv_transfer_params": 3}, "kv_transfer_params"),
        ({"prompt": "a", "model": "other"}, "model"),
    ],
)
def test_a_bad_completion_is_refused_and_the_field_is_named(body, param):
    with pytest.raises(RequestRefusedError) as refused:
        asked_for(body, "demo", chat=False)
    assert refused.value.param == param


@pytest.mark.parametrize(
    "messages", [None, [], ["text"], [{"content": "no role"}], [{"role": "user", "content": [{"type": "image_url"}]}]]
)
def test_bad_messages_are_refused(messages):
    with pytest.raises(RequestRefusedError) as refused:
        asked_for({"messages": messages}, "demo", chat=True)
    assert refused.value.param == "messages"
