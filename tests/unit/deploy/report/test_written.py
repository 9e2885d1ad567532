"""The forms of a report: texts from the bus do no harm in any of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from bus_schemas import v1
from deploy.report.evidence import NotAReportError, claimed, compared, not_recomputed, recomputed
from deploy.report.journal import StreamRange, digest, ranges
from deploy.report.period_report import PeriodReport, as_json, report
from deploy.report.signature import Signature, signed, verified
from deploy.report.tables import ReportTable
from deploy.report.usage import Prices
from deploy.report.written import FORMS, _section, as_csv, markdown, page
from tests.unit.deploy.report.messages import HOUR, Journal

EVIL = '<script>alert("x")</script> | a\nb \x1b[31m'
SEED = b"SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY\n"


def made(reason: str = "grid", journal: Journal | None = None) -> PeriodReport:
    journal = journal or Journal()
    journal.caps(10, "a", 300, 700)
    journal.in_force(11, "a", 300)
    journal.budget(20, 500, reason=reason, issued_by="=cmd()")
    journal.tick(30, problems=(v1.Reason(code="agents", text=reason),))
    return report(journal.entries, HOUR, Prices(kwh=0.2), HOUR.until)


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not {name for name, _ in attrs} & {"src", "href", "onload", "onerror"}


def test_the_page_holds_no_script_and_loads_nothing() -> None:
    tags = Tags()
    tags.feed(page(made(EVIL)))
    assert "script" not in tags.seen
    assert {"table", "h1"} <= tags.seen


def test_a_command_in_a_note_is_one_in_html_too_and_stays_text() -> None:
    table = ReportTable("t", ("a",), [("`x`",)], notes=["kept by `wattscale archive <b>`"])
    assert "<li>kept by <code>wattscale archive &lt;b&gt;</code></li>" in _section(table)
    assert "<td>`x`</td>" in _section(table)


def test_no_form_passes_control_characters_on() -> None:
    for form in FORMS.values():
        assert "\x1b" not in form(made(EVIL))


def test_a_cell_of_markdown_stays_in_its_cell() -> None:
    (row,) = [line for line in markdown(made(EVIL)).splitlines() if line.startswith("| row | 2026")]
    assert row.count(" | ") == 5


def test_markdown_holds_no_tag_link_or_image_of_the_bus() -> None:
    text = markdown(made("<img src=//x> ![a](//x) [b](//x)"))
    assert "<" not in text
    assert "![" not in text
    assert r"\[b](//x)" in text


def test_a_spreadsheet_gets_no_formula() -> None:
    rows = list(csv.reader(io.StringIO(as_csv(made()))))
    assert any("'=cmd()" in row for row in rows)
    assert not any(cell.startswith("=") for row in rows for cell in row)


def test_every_form_says_the_same_first_sentence_but_json_which_has_the_figures() -> None:
    told = "The budget was held: 0 violations in 1 acknowledgement of 1 node."
    for name in ("html", "md", "csv"):
        assert told in FORMS[name](made())
    (site,) = json.loads(FORMS["json"](made()))["sites"]
    assert (site["violations"], site["acknowledgements"], site["most_enforced"]) == (0, 1, 300)


def test_evidence_agrees_with_the_messages_and_with_no_others() -> None:
    journal = Journal()
    claims = claimed(FORMS["json"](made(journal=journal)))
    lines = compared(claims, ranges(journal.entries))
    assert len(lines) == 5
    assert all(agrees for agrees, _ in lines)

    altered = Journal()
    made("other", journal=altered)
    assert [text for agrees, text in compared(claims, ranges(altered.entries)) if not agrees] == [
        "CONTROL: 1 messages differ from the report",
        "PLANS: 1 messages differ from the report",
    ]
    fewer = [entry for entry in journal.entries if entry.stream != "PLANS"]
    assert (False, "PLANS: 1 of 1 messages are not there any more") in compared(claims, ranges(fewer))
    # What is gone may be in an archive; what differs is not mended by one.
    assert "`wattscale archive FOLDER`" in not_recomputed(claims, ranges(fewer))
    assert "archive" not in not_recomputed(claims, ranges(altered.entries))


def test_a_report_whose_streams_were_edited_is_not_its_own() -> None:
    value = as_json(made())
    value["evidence"]["streams"][0]["count"] += 1
    claims = claimed(json.dumps(value))
    assert (False, "its digest is not that of its streams") in compared(claims, ())


def test_a_report_that_leaves_a_stream_out_does_not_agree() -> None:
    journal = Journal()
    value = as_json(made(journal=journal))
    streams = [one for one in value["evidence"]["streams"] if one["stream"] != "ACKS"]
    value["evidence"] |= {"streams": streams, "sha256": digest(StreamRange(**one) for one in streams)}
    lines = compared(claimed(json.dumps(value)), ranges(journal.entries))
    assert [text for agrees, text in lines if not agrees] == ["ACKS: 1 messages of the period are not in the report"]


def test_figures_that_the_messages_do_not_give_do_not_agree() -> None:
    journal = Journal()
    journal.caps(-20, "a", 250, 700)
    journal.in_force(-19, "a", 250)
    value = as_json(made(journal=journal))
    again = report(journal.entries, HOUR, Prices(kwh=0.2), HOUR.since)
    assert [agrees for agrees, _ in recomputed(claimed(json.dumps(value)), again)] == [True] * 5

    for part, change in (
        ("deployments", [{**value["deployments"][0], "requests": 1e6}]),
        ("sites", [{**value["sites"][0], "violations": 1}]),
        ("decisions", {**value["decisions"], "power_decisions": 0}),
    ):
        lines = recomputed(claimed(json.dumps({**value, part: change})), again)
        assert [text for agrees, text in lines if not agrees] == [
            f"{part}: its figures are not those that the messages give"
        ]

    later = [entry for entry in journal.entries if entry.stored_at >= HOUR.since]
    ((agrees, text),) = recomputed(claimed(json.dumps(value)), report(later, HOUR, Prices(kwh=0.2), HOUR.since))
    assert not agrees
    assert text.startswith("what was in force when the period began is not there any more")
    assert "`wattscale archive FOLDER`" in text


def test_an_archive_that_reaches_further_back_gives_the_same_report() -> None:
    journal = Journal()
    for second, watts in ((-300, 600), (-200, 400), (-100, 250)):
        journal.caps(second, "a", watts, 700)
        journal.in_force(second + 1, "a", watts)
    journal.tick(-50)
    whole = as_json(made(journal=journal))
    newest = {entry.subject: entry for entry in journal.entries if entry.stored_at < HOUR.since}
    fewer = [entry for entry in journal.entries if entry.stored_at >= HOUR.since or entry in newest.values()]
    assert as_json(report(fewer, HOUR, Prices(kwh=0.2), HOUR.until)) == whole


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x", "evidence": 3}', '{"format": 1}', "[" * 100_000])
def test_anything_else_is_no_report(text: str) -> None:
    with pytest.raises(NotAReportError):
        claimed(text)


@pytest.mark.parametrize("price", ["1" + 400 * "0", "NaN", "1e999"])
def test_a_price_that_no_cost_can_be_made_of_is_no_report(price: str) -> None:
    text = json.dumps(as_json(made())).replace('"kwh": 0.2', f'"kwh": {price}')
    assert price in text
    with pytest.raises(NotAReportError):
        claimed(text)


WRONG: tuple[Any, ...] = (None, 3, -1.5, True, "x", [], {}, [3], {"a": 1}, "2026-01-01T00:00", "0001-01-01T00:00+14:00")


def test_a_report_with_a_value_of_another_type_is_no_report_or_does_not_agree() -> None:
    """Each value of a good report in turn: never an error of another kind."""
    journal = Journal()
    made_one = made(journal=journal)
    good = as_json(replace(made_one, signature=signed(made_one.digest, SEED)))
    refused = 0
    for path in list(paths(good)):
        for wrong in WRONG:
            value = json.loads(json.dumps(good))
            *way, last = path
            inner = value
            for step in way:
                inner = inner[step]
            inner[last] = wrong
            try:
                claims = claimed(json.dumps(value))
            except NotAReportError:
                refused += 1
                continue
            found = report(journal.entries, claims.period, claims.prices, HOUR.until, what_if=claims.what_if)
            compared(claims, found.evidence)
            recomputed(claims, found)
            if claims.signature is not None:
                verified(claims.sha256, claims.signature)
    assert refused > 100


def paths(value: Any, *way: str | int) -> Iterator[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*way, key)
        yield from paths(each, *way, key)


def test_a_signature_is_of_one_digest_by_one_key() -> None:
    one = signed(made().digest, SEED)
    assert one.public_key.startswith("U")
    assert verified(made().digest, one)
    assert not verified(made("other").digest, one)
    assert not verified(made().digest, Signature(one.public_key, "AAAA"))
    assert not verified(made().digest, Signature("not a key", one.base64))
    with pytest.raises(ValueError, match="not the seed of an NKEY"):
        signed(made().digest, b"SUAnothing")
