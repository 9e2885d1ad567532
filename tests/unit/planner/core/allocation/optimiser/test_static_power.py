"""Joint counts and caps are never below any static policy, and well above provisioning at TDP."""

from __future__ import annotations

from tests.benchmarks.power.static_power import rows


def test_joint_is_never_below_any_static_policy() -> None:
    found = rows()
    assert len(found) == 9
    for row in found:
        assert row.joint >= max(row.tdp, row.uniform, row.phase) - 1e-9, row


def test_joint_carries_a_quarter_more_than_tdp_provisioning_on_dense_decode() -> None:
    row = next(row for row in rows() if row.decode == "decode_dense" and row.budget == 1.0)
    assert row.joint >= 1.25 * row.tdp
