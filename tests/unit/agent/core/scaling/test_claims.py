"""Two connectors of a deployment, and two deployments on a target, are refused by name."""

from __future__ import annotations

from agent.core.scaling.claims import Holder, refusal, shared_targets

OWN, OTHER = Holder("virtual on a", "1"), Holder("kubernetes on b", "2")


def test_a_second_connector_is_refused_by_name() -> None:
    assert refusal("prod", OWN, None) is None
    assert refusal("prod", OWN, OWN) is None
    assert refusal("prod", OWN, OTHER) == (
        "deployment prod is scaled by connector kubernetes on b (2): stop it, or leave the deployment out of "
        "virtual on a (1)"
    )


def test_a_target_of_two_pools_or_deployments_is_refused_by_name() -> None:
    assert shared_targets({"a": {"decode": "x", "prefill": "y"}, "b": {"decode": "z"}}) == ()
    assert shared_targets({"a": {"decode": "x"}, "b": {"decode": "x"}}) == (
        "target x is claimed by pool decode of a and by pool decode of b: give it to one of them",
    )
