"""Stored messages of v1 parse forever, mean the same, and satisfy the published schemas."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus_schemas import codec
from bus_schemas.errors import NotJsonError, TooLargeError, UndecodableError, UnknownTypeError, WrongContentError
from bus_schemas.export import generate
from bus_schemas.v1 import MESSAGES, PowerDecision, ScalingAck, ScalingDecision
from tests.npm_parts import npm_folder

HERE = Path(__file__).parent
CORPUS = sorted((HERE / "corpus" / "v1").glob("*.json"))
names = pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)


def test_the_corpus_is_as_it_was_written_and_covers_every_message() -> None:
    lines = [line.split() for line in (HERE / "corpus" / "MANIFEST").read_text().splitlines()]
    listed = {name: digest for digest, name in lines}
    there = {f"v1/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in CORPUS}
    assert there == listed, "stored messages never change; new ones are added with a line in MANIFEST"
    assert {path.name.split(".")[0] for path in CORPUS} == {generate.short(cls) for cls in MESSAGES}


@names
def test_every_stored_message_parses_and_keeps_what_it_says(path: Path) -> None:
    body = json.loads(path.read_bytes())
    message = codec.decode(path.read_bytes())
    again = json.loads(codec.encode(message))
    assert _schema_errors(body, again) == body
    assert codec.decode(codec.encode(message)) == message
    assert next(iter(again)) == "type"


@names
def test_every_stored_message_satisfies_its_published_schema(path: Path) -> None:
    name = path.name.split(".")[0]
    schema = json.loads((generate.HERE / "schemas" / f"{name}.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    body = json.loads(path.read_bytes())
    validator.validate(body)
    validator.validate(json.loads(codec.encode(codec.decode(path.read_bytes()))))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**body, "type": "wattscale.v1.other"})
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({key: value for key, value in body.items() if key != "time"})


@names
def test_what_a_later_minor_version_adds_is_ignored(path: Path) -> None:
    body: Any = json.loads(path.read_bytes())

    def grown(value: Any) -> Any:
        if isinstance(value, dict) and "type" in value:
            return {**{key: grown(one) for key, one in value.items()}, "added_later": {"x": [1]}}
        return value

    assert codec.decode(json.dumps(grown(body)).encode()) == codec.decode(path.read_bytes())


def test_the_exported_files_match_the_models() -> None:
    assert generate.drifted() == [], "run: python -m bus_schemas.export.generate"


def test_the_asyncapi_document_parses() -> None:
    """By the reference parser, from npm."""
    folder = npm_folder(HERE / "asyncapi")
    document = generate.HERE / "asyncapi.json"
    done = subprocess.run(
        ["node", HERE / "asyncapi.mjs", folder, document], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    assert done.stderr.startswith("13 channels, 11 messages")


BODIES = st.one_of(
    st.binary(max_size=300),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode()),
)


def readable_or_undecodable(body: bytes) -> None:
    reason, message = "", None
    try:
        message = codec.decode(body)
    except UndecodableError as error:
        reason = error.reason
    if message is None:
        assert 0 < len(reason) < 1000
        assert "\n" not in reason
    else:
        assert codec.decode(codec.encode(message)) == message


@pytest.mark.parametrize("field", ["time", "effective_from"])
@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_time_that_is_in_no_utc_year_is_refused_and_ends_no_reader(field: str, when: str) -> None:
    body = json.loads((HERE / "corpus" / "v1" / "budget_change.full.json").read_bytes())
    with pytest.raises(UndecodableError, match="1 to 9999"):
        codec.decode(json.dumps({**body, field: when}).encode())


@given(BODIES)
def test_any_body_is_read_or_refused_with_a_reason(body: bytes) -> None:
    readable_or_undecodable(body)


@given(st.sampled_from(CORPUS), st.data())
def test_any_damage_to_a_message_is_read_or_refused_with_a_reason(path: Path, data: st.DataObject) -> None:
    body: dict[str, Any] = json.loads(path.read_bytes())
    key = data.draw(st.sampled_from(sorted(body)))
    match data.draw(st.sampled_from(["drop", "swap", "cut", "type", "flip"])):
        case "drop":
            del body[key]
        case "swap":
            body[key] = data.draw(st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers(), max_size=2))
        case "type":
            body["type"] = data.draw(st.sampled_from(["wattscale.v2.power_ack", "x", "", "wattscale.v1.lease"]))
        case "cut":
            raw = json.dumps(body).encode()
            readable_or_undecodable(raw[: data.draw(st.integers(0, len(raw) - 1))])
        case "flip":
            flipped = bytearray(json.dumps(body).encode())
            flipped[data.draw(st.integers(0, len(flipped) - 1))] = data.draw(st.integers(0, 255))
            readable_or_undecodable(bytes(flipped))
            return
    readable_or_undecodable(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        (b"", NotJsonError, "not a JSON object"),
        (b"null", NotJsonError, "not a JSON object"),
        (b"[" * 100_000, NotJsonError, "not a JSON object"),
        (b'{"type": 7}', UnknownTypeError, "not one of v1"),
        (b"{}", UnknownTypeError, "no field 'type'"),
        (b'{"type":"wattscale.v9.lease"}', UnknownTypeError, "version this reader does not know"),
        (b'{"type":"wattscale.v1.lease"}', WrongContentError, "time"),
        (b'{"type":"' + b"x" * (1 << 20) + b'"}', TooLargeError, "at most"),
    ],
)
def test_refusals_give_the_reason(body: bytes, kind: type[UndecodableError], said: str) -> None:
    with pytest.raises(kind) as caught:
        codec.decode(body)
    assert said in caught.value.reason


def test_another_message_than_the_one_wanted_is_refused() -> None:
    body = (HERE / "corpus" / "v1" / "power_decision.full.json").read_bytes()
    assert codec.decode_as(PowerDecision, body).node == "node-7.example"
    with pytest.raises(UnknownTypeError, match="belongs"):
        codec.decode_as(ScalingDecision, body)


def test_times_are_utc_with_microseconds_and_naive_ones_are_refused() -> None:
    body = json.loads((HERE / "corpus" / "v1" / "scaling_ack.least.json").read_bytes())
    body["time"] = "2026-01-02T04:04:05.5+01:00"
    message = codec.decode_as(ScalingAck, json.dumps(body).encode())
    assert b'"time":"2026-01-02T03:04:05.500000Z"' in codec.encode(message)
    body["time"] = "2026-01-02T04:04:05"
    with pytest.raises(WrongContentError):
        codec.decode(json.dumps(body).encode())


def test_headers_are_cloud_events_and_refuse_what_they_cannot_carry() -> None:
    message = codec.decode((HERE / "corpus" / "v1" / "power_decision.full.json").read_bytes())
    made = codec.headers(message, "id-1", "planner-0")
    assert made["ce-time"] == "2026-01-02T03:04:05.678901Z"
    for bad in ("", "a\r\nX: y", "ä", " a"):
        with pytest.raises(ValueError, match="printable"):
            codec.headers(message, bad, "planner-0")
    with pytest.raises(ValueError, match="traceparent"):
        codec.headers(message, "id-1", "planner-0", traceparent="x")


def test_the_generator_says_when_files_differ() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bus_schemas.export.generate", "--check"],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE.parents[2],
    )
    assert (done.returncode, done.stdout) == (0, "")


def _schema_errors(old: object, new: object) -> object:
    """``new`` without the fields that a later minor version added, at every depth."""
    if isinstance(old, dict) and isinstance(new, dict):
        return {key: _schema_errors(old[key], new[key]) for key in old if key in new}
    if isinstance(old, list) and isinstance(new, list):
        return [_schema_errors(a, b) for a, b in zip(old, new, strict=True)]
    return new
