"""The list of limiters, and a limiter that a stranger adds to it."""

from __future__ import annotations

from planner.core.intake import initial_state
from planner.core.limits import LIMITERS
from planner.core.limits.limiter import CountsByPool, LimitContext, Limiter, each_pool
from planner.core.step import step
from planner.domain.config import PoolConfig
from planner.domain.observation import Observation
from planner.domain.plan import Limited, Plan
from planner.domain.reasons import ReasonCode
from tests.unit.planner.core.small_site import DECODE, PREFILL, D, planner, traffic

LEAST = 7


def at_least_seven_decoders(context: LimitContext, counts: CountsByPool) -> CountsByPool:
    """A limiter from outside."""

    def limit(pool: PoolConfig, count: int) -> Limited | None:
        if pool.pool != DECODE or count >= LEAST:
            return None
        return Limited(LEAST, ReasonCode.MIN_REPLICAS, "the toy wants seven")

    return each_pool(context, counts, limit)


def plan(*added: Limiter) -> Plan:
    config = planner()
    state = initial_state(config, 1, 0.0, (), ())
    return step(state, Observation({D: traffic(5.0)}), config, config.clock(30.0), (*LIMITERS, *added))[1]


def test_a_limiter_that_is_added_decides_and_gives_its_reason() -> None:
    before, after = plan().deployments[D].pools, plan(at_least_seven_decoders).deployments[D].pools
    assert before[DECODE].granted < LEAST
    assert after[DECODE].granted == LEAST
    assert after[DECODE].chain[-1].sentence == "the toy wants seven"
    assert after[PREFILL].chain == before[PREFILL].chain


def test_every_limiter_is_listed_once_and_explains_itself() -> None:
    assert len(set(LIMITERS)) == len(LIMITERS)
    assert all((limiter.__doc__ or "").startswith("Limiter:") for limiter in LIMITERS)
