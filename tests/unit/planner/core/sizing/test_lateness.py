"""Many deployments' prompts in one pass: every figure equals that of one deployment's, to the last bit."""

from __future__ import annotations

import math
import random

from planner.core.sizing.late_prompts import lateness
from planner.core.sizing.late_prompts.transient import Outlook, Prompts


def asked(rng: random.Random, rates: int) -> Prompts:
    """From nearly idle to overloaded, with and without a backlog, with replicas that serve or all that could."""
    own_ms = 10.0 ** rng.uniform(0.5, 2.7)
    busiest = 10.0 ** rng.uniform(-1.5, 2.0)
    one = Outlook(
        rates=tuple(busiest * rng.uniform(0.1, 1.0) for _ in range(rates)),
        own_ms=own_ms,
        cost_ms=own_ms * rng.uniform(0.2, 1.5),
        cs2=rng.uniform(0.1, 10.0),
        ca2=1.0,
        backlog_ms=rng.choice([0.0, 0.0, rng.uniform(0.0, 1e5)]),
        serving=rng.choice([math.inf, rng.uniform(0.0, 50.0)]),
        lead_ms=rng.choice([0.0, 60_000.0]),
        span_ms=rng.choice([7500.0, 75_000.0]),
    )
    return Prompts(one, own_ms * rng.uniform(1.25, 20.0), rng.choice([0.5, 0.1, 0.05, 0.01]))


def test_one_pass_over_many_equals_each_alone() -> None:
    rng = random.Random(7)
    many = [asked(rng, rates) for rates in (8, 8, 8, 3) for _ in range(100)]
    found = lateness.lines(many)
    assert len(found) == len(many)
    for each in many:
        assert found[each] == each.outlook.line(each.target_ms, each.share), each


def test_a_few_are_left_to_each_alone_and_loads_without_rates_too() -> None:
    rng = random.Random(8)
    assert lateness.lines([asked(rng, 8) for _ in range(lateness.FEWEST - 1)]) == {}
    assert lateness.lines([asked(rng, 8)] * 100) == {}
    nothing = Prompts(Outlook((), 10.0, 10.0, 1.0, 1.0, 0.0, 1.0, 0.0, 7500.0), 100.0, 0.05)
    assert lateness.lines([nothing] * lateness.FEWEST) == {}
