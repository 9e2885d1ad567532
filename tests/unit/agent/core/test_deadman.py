"""Leases on the agent's own clock, and numbers that are unsafe together."""

from __future__ import annotations

import pytest

from agent.core.deadman import CapLease, clock_of, lease_of, unsafe


def test_a_lease_runs_from_the_report_that_the_decision_names() -> None:
    assert lease_of("m/2", "m/2", 100.0, 30.0, 125.0) == CapLease(130.0, ours=True)


def test_a_late_decision_is_already_over() -> None:
    lease = lease_of("m/2", "m/2", 100.0, 30.0, 200.0)
    assert lease is not None
    assert lease.ends_s == 130.0


def test_an_earlier_process_of_this_machine_shares_its_clock_but_not_its_memory() -> None:
    assert lease_of("m/2", "m/1", 100.0, 30.0, 110.0) == CapLease(130.0, ours=False)


def test_another_machine_boot_is_another_clock() -> None:
    assert lease_of("m/2", "l/1", 100.0, 30.0, 110.0) is None
    assert clock_of("one-word") == "one-word"


def test_a_decision_that_names_no_report_counts_from_its_receipt() -> None:
    assert lease_of("m/2", "", None, 30.0, 110.0) == CapLease(140.0, ours=True)
    assert lease_of("m/2", "m/2", None, 30.0, 110.0) == CapLease(140.0, ours=True)


def test_a_report_from_the_future_gains_nothing() -> None:
    assert lease_of("m/2", "m/2", 500.0, 30.0, 110.0) == CapLease(140.0, ours=True)


@pytest.mark.parametrize(
    ("lease_s", "reconcile_s", "telemetry_s", "word"),
    [(30.0, 15.0, 5.0, ""), (9.0, 15.0, 5.0, "lease"), (30.0, 60.0, 5.0, "reconcile"), (0.0, 15.0, 5.0, "above 0")],
)
def test_unsafe_numbers_are_named(lease_s: float, reconcile_s: float, telemetry_s: float, word: str) -> None:
    found = unsafe(lease_s, reconcile_s, telemetry_s)
    assert any(word in sentence for sentence in found) if word else not found
