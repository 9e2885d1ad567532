"""Control characters in the texts and names of messages are shown as numbers, wherever messages are shown."""

from __future__ import annotations

import io
import json
import logging
import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bus_schemas import v1
from bus_schemas.codec import decode
from bus_schemas.errors import UndecodableError
from bus_schemas.visible_text import VisibleFormatter, visible, visible_handler, visible_json, visible_parts
from deploy.views.budgets import as_text as budgets_text
from deploy.views.budgets import budgets
from deploy.views.explain import explain
from deploy.views.freshness import problems
from deploy.views.live_view import DemoStatus, plain_line
from deploy.views.site_view import SiteView
from deploy.views.status import as_json, as_text
from deploy.views.terminal_view import panel
from deploy.views.words import sentence
from planner.sim.evaluation.html_report import table
from tests.contract.messages.test_corpus import CORPUS

HOSTILE = "\x1b[31mRED\x1b]0;pwn\x07\x9b2J\u202eabc\nforged line\r"
HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
FREE = ("reason", "text", "code", "deployment", "node", "site", "holder", "issued_by", "pool", "gpu", "worker", "model")
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def hostile(value: Any, key: str = "") -> Any:
    """The same JSON with a hostile end on every free text and every name."""
    if isinstance(value, dict):
        named = key in ("pools", "replicas", "gpu_power", "observed", "missing", "targets", "expected", "corrections")
        return {f"{name}{HOSTILE}" if named else name: hostile(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner, key) for inner in value]
    return f"{value}{HOSTILE}" if isinstance(value, str) and key in FREE else value


def messages() -> list[v1.Message]:
    bodies = [json.loads(path.read_text()) for path in CORPUS if path.stem.endswith(".full")]
    return [decode(json.dumps(hostile(body)).encode()) for body in bodies]


ALL = messages()


def of(kind: type[Any]) -> Any:
    return next(one for one in ALL if isinstance(one, kind))


def rendered(picture: SiteView, run: DemoStatus) -> str:
    out = io.StringIO()
    Console(file=out, width=200, height=60, force_terminal=False).print(panel(picture, run, 200, 60))
    return out.getvalue()


def shown() -> dict[str, str]:
    picture = SiteView()
    for message in ALL:
        picture.add(message)
    run = DemoStatus("title", "hint", 1.0, 1.0, tuple(problems(picture, NOW)))
    commands = [one for one in ALL if isinstance(one, v1.BudgetChange)]
    sites = budgets(picture, commands, NOW)
    return {
        "status": as_text(picture, NOW),
        "status --json": json.dumps(as_json(picture, NOW)),
        "explain": explain(of(v1.PlanRecord), of(v1.ScalingDecision), of(v1.ScalingAck), NOW),
        "decisions": "\n".join(map(sentence, ALL)),
        "decisions --json": "\n".join(visible_json(one.model_dump_json()) for one in ALL),
        "budget show": budgets_text(sites, everything=True),
        "live view": rendered(picture, run),
        "plain view": plain_line(picture, run),
        "report": table(("a", HOSTILE), [(HOSTILE, HOSTILE)]),
    }


@pytest.mark.parametrize("where", list(shown()))
def test_of_messages(where: str) -> None:
    text = shown()[where]
    assert "RED" in text
    assert HIDDEN.search(text) is None, text
    assert "\nforged" not in text


@pytest.mark.parametrize("message", ALL, ids=lambda one: one.type)
def test_messages_without_such_characters_are_the_same_objects(message: v1.Message) -> None:
    clean = visible_parts(message)
    assert clean is not message or "RED" not in message.model_dump_json()
    assert visible_parts(clean) is clean


def test_json_still_says_what_the_message_says() -> None:
    change = of(v1.BudgetChange)
    assert json.loads(visible_json(change.model_dump_json()))["reason"] == change.reason


def test_a_log_record_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    record = logging.LogRecord("a", logging.ERROR, "p", 1, "refused: %s", (HOSTILE,), None)
    line = visible_handler("%(levelname)s %(message)s").format(record)
    assert HIDDEN.search(line) is None
    assert line.count("\n") == 0
    error = ValueError(HOSTILE)
    assert HIDDEN.search(VisibleFormatter().formatException((ValueError, error, None))) is None


@pytest.mark.parametrize("text", ["plain", "größer ≥ 名前", "a\\x1b"])
def test_what_has_a_shape_stays_as_it_is(text: str) -> None:
    assert visible(text) is text


def with_hostile_texts(value: Any) -> list[Any]:
    """The same JSON once for each of its texts but its type, with a hostile end on that one."""
    if isinstance(value, dict):
        return [
            {**value, key: one} for key, inner in value.items() if key != "type" for one in with_hostile_texts(inner)
        ]
    if isinstance(value, list):
        return [
            [*value[:at], one, *value[at + 1 :]] for at, inner in enumerate(value) for one in with_hostile_texts(inner)
        ]
    return [f"{value}{HOSTILE}"] if isinstance(value, str) else []


@pytest.mark.parametrize("path", [path for path in CORPUS if path.stem.endswith(".full")], ids=lambda path: path.stem)
def test_no_single_text_of_a_message_hides_anything(path: Path) -> None:
    body = json.loads(path.read_text())
    assert visible_parts(whole := decode(json.dumps(body).encode())) is whole
    tried = 0
    for changed in with_hostile_texts(body):
        with suppress(UndecodableError):
            # A time, or one of a fixed list, cannot be anything else.
            shown_as = visible_parts(decode(json.dumps(changed).encode()))
            tried += 1
            assert not HIDDEN.search("".join(_texts_of(shown_as.model_dump()))), changed
    assert tried > 0


def _texts_of(value: Any) -> list[str]:
    match value:
        case str():
            return [value]
        case dict():
            return [text for key, inner in value.items() for text in (str(key), *_texts_of(inner))]
        case list() | tuple():
            return [text for inner in value for text in _texts_of(inner)]
    return []
