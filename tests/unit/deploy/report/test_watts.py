"""Whether the budget held, as agents acknowledged it."""

from __future__ import annotations

import pytest

from deploy.report.period_report import PeriodReport, report
from deploy.report.tables import headline, tables
from deploy.report.usage import Prices
from deploy.report.watts import SiteWatts, watts
from tests.unit.deploy.report.messages import HOUR, Journal, at


@pytest.fixture
def journal() -> Journal:
    """Two nodes at 400 W each under a budget of 1,000 W since before the hour."""
    made = Journal()
    for node in ("a", "b"):
        made.caps(-60, node, 400, 1000)
        made.in_force(-59, node, 400)
    return made


def row(journal: Journal) -> SiteWatts:
    (site,) = watts(journal.entries, HOUR)
    return site


def made(journal: Journal) -> PeriodReport:
    return report(journal.entries, HOUR, Prices(), HOUR.until)


def test_what_was_in_force_before_the_period_counts_in_it(journal: Journal) -> None:
    journal.in_force(10, "a", 500)
    site = row(journal)
    assert (site.most_enforced, site.violations, site.excesses) == (900, [], [])
    assert (site.acknowledgements, site.nodes, site.unanswered) == (1, 2, ())
    assert headline(made(journal)) == "The budget was held: 0 violations in 1 acknowledgement of 2 nodes."


def test_limits_above_the_budget_without_a_cut_are_a_violation(journal: Journal) -> None:
    journal.in_force(100, "a", 700)
    journal.in_force(103, "a", 400)
    (found,) = row(journal).violations
    assert (found.began, found.ended, found.most_watts, found.after_cut) == (at(100), at(103), 100, False)
    assert headline(made(journal)) == "The budget was NOT held: 1 times, by up to 100 W (2 acknowledgements)."


def test_the_time_that_a_cut_takes_is_compliance_and_is_stated(journal: Journal) -> None:
    journal.budget(100, 700, issued_by="ops", reason="grid")
    journal.caps(100.05, "a", 300, 700)
    journal.in_force(100.2, "a", 300)
    journal.in_force(101.5, "b", 400)
    site = row(journal)
    assert site.violations == []
    (cut,) = site.excesses
    assert (cut.most_watts, cut.after_cut) == (100, True)
    assert cut.ended is not None
    assert (cut.ended - cut.began).total_seconds() == pytest.approx(0.15)
    (order,) = site.orders
    assert (order.watts, order.issued_by, order.reason) == (700, "ops", "grid")
    assert order.complied_s == pytest.approx(0.2)
    assert "except while 1 cut was carried out (at most 0.15 s and 100 W)" in headline(made(journal))


def test_a_cut_that_is_not_in_force_when_the_period_ends_is_not_called_done(journal: Journal) -> None:
    journal.in_force(3580, "a", 400)
    journal.budget(3590, 500)
    journal.caps(3590, "a", 300, 500)
    site = row(journal)
    assert [order.complied_s for order in site.orders] == [None]
    assert [one.ended for one in site.excesses] == [None]
    assert "at most 10.00 s and 300 W, one not finished" in headline(made(journal))


def test_a_limit_that_rises_while_a_cut_is_carried_out_is_a_violation(journal: Journal) -> None:
    journal.caps(100, "a", 300, 700)
    journal.in_force(101, "b", 350)
    journal.in_force(102, "b", 400)
    journal.in_force(103, "a", 300)
    (found,) = row(journal).violations
    assert (found.began, found.ended, found.most_watts) == (at(100), at(103), 100)
    assert "NOT held" in headline(made(journal))


def test_a_node_that_first_answers_while_a_cut_is_carried_out_raised_nothing(journal: Journal) -> None:
    journal.caps(99, "c", 200, 1000)
    journal.caps(100, "a", 300, 700)
    journal.in_force(101, "c", 200)
    journal.in_force(102, "a", 200)
    journal.in_force(102, "b", 300)
    site = row(journal)
    assert (site.violations, [one.most_watts for one in site.excesses]) == ([], [300])


def test_an_order_is_not_in_force_while_no_node_has_answered() -> None:
    journal = Journal()
    journal.caps(10, "a", 400, 1000)
    journal.budget(100, 700)
    journal.caps(101, "a", 400, 700)
    assert [order.complied_s for order in row(journal).orders] == [None]
    journal.in_force(105, "a", 400)
    assert [order.complied_s for order in row(journal).orders] == [5.0]


def test_a_budget_of_nothing_is_a_budget(journal: Journal) -> None:
    journal.caps(10, "a", 0, 0)
    journal.caps(20, "a", 400, 1000)
    site = row(journal)
    assert (site.least_budget, site.most_budget) == (0, 1000)


def test_what_was_in_force_before_the_first_answer_is_not_called_held() -> None:
    journal = Journal()
    for second, node in ((1800, "a"), (2400, "b")):
        journal.caps(second, node, 400, 1000)
        journal.in_force(second, node, 400)
    site = row(journal)
    assert (site.known_from, site.late) == (at(1800), 2)
    assert headline(made(journal)).endswith("of 2 nodes; of row nothing is known before 2026-01-02 12:30:00.")
    (table, *_) = tables(made(journal))
    assert any("of 2 of 2 nodes nothing is known before they answered in this period" in note for note in table.notes)
    journal.in_force(-60, "a", 400)
    site = row(journal)
    assert (site.known_from, site.late) == (at(1800), 2)  # Without a decision from then, the answer has no budget.
    journal.caps(-61, "a", 400, 1000)
    assert (row(journal).known_from, row(journal).late) == (None, 1)


def test_an_order_with_a_ramp_is_due_after_it_and_met_where_caps_are_lower_already(journal: Journal) -> None:
    journal.budget(100, 900, ramp_s=60)
    (order,) = row(journal).orders
    assert (order.effective, order.complied_s) == (at(160), 0.0)


def test_gpus_outside_the_budget_do_not_count(journal: Journal) -> None:
    journal.caps(10, "a", 400, 1000, outside_gpus=("GPU-a",))
    journal.in_force(11, "a", 700)
    assert row(journal).violations == []


def test_a_limit_that_was_not_read_is_the_one_before(journal: Journal) -> None:
    journal.in_force(10, "a", None)
    journal.in_force(11, "b", 700)
    assert [one.most_watts for one in row(journal).violations] == [100]


def test_nodes_that_never_answered_are_named_and_nothing_is_claimed_without_answers() -> None:
    journal = Journal()
    journal.caps(10, "a", 400, 1000)
    assert row(journal).unanswered == ("a",)
    assert headline(made(journal)).startswith("Whether the budget was held is not known")
    journal.caps(11, "b", 400, 1000)
    journal.in_force(12, "b", 400)
    assert headline(made(journal)).endswith("of 2 nodes; 1 of 2 nodes have never answered.")
