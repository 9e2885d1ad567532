"""What a connector does with the worker processes that it keeps."""

from __future__ import annotations

import random

import pytest

from agent.core.scaling.worker_lifecycle import (
    LONGEST_PAUSE_S,
    DrainWorker,
    Failures,
    ForgetWorker,
    KillWorker,
    PoolRules,
    StartWorker,
    Steps,
    WorkerSeen,
    WorkerStage,
    next_steps,
    pool_seen,
)

RULES = {"prefill": PoolRules(1, 60, 30), "decode": PoolRules(2, 60, 30)}
GPUS = tuple(f"g{index}" for index in range(8))
READY, STARTING, DRAINING = WorkerStage.READY, WorkerStage.STARTING, WorkerStage.DRAINING


def one(worker: str, stage=READY, *, pool="prefill", since=0.0, gpus=("g0",), **more) -> WorkerSeen:
    return WorkerSeen(worker, pool, stage, since, tuple(gpus), **more)


def steps(wanted, workers=(), *, now_s=100.0, failures=None, gpus=GPUS, placements=None) -> Steps:
    return next_steps(wanted, workers, RULES, failures or {}, gpus, now_s, placements)


def test_missing_workers_start_on_free_gpus():
    found = steps({"prefill": 2, "decode": 1}, [one("a")])
    assert found.actions == (StartWorker("prefill", ("g1",)), StartWorker("decode", ("g2", "g3")))


def test_reserved_gpus_are_taken_where_they_are_free():
    found = steps({"prefill": 3}, [one("a")], placements={"prefill": [("g0",), ("g5",), ("g6", "g7")]})
    assert found.actions == (StartWorker("prefill", ("g5",)), StartWorker("prefill", ("g1",)))


def test_too_few_gpus_start_what_fits_and_name_the_pool():
    found = steps({"decode": 2}, gpus=("g0", "g1", "g2"))
    assert found.actions == (StartWorker("decode", ("g0", "g1")),)
    assert "decode: too few free GPUs" in found.problems["decode"]


def test_a_draining_worker_holds_its_gpus_until_it_is_gone():
    leaving = one("a", DRAINING, since=90.0)
    assert steps({"prefill": 1}, [leaving], gpus=("g0",)).actions == ()
    gone = one("a", DRAINING, since=90.0, alive=False)
    assert steps({"prefill": 1}, [gone], gpus=("g0",)).actions == (ForgetWorker("a"), StartWorker("prefill", ("g0",)))


def test_those_that_serve_nothing_leave_first_and_then_the_newest():
    workers = [one("a"), one("b", STARTING, gpus=("g1",), since=99.0), one("c", gpus=("g2",))]
    assert steps({"prefill": 2}, workers).actions == (DrainWorker("b", was_ready=False),)
    expected = (DrainWorker("b", was_ready=False), DrainWorker("c", was_ready=True))
    assert steps({"prefill": 1}, workers).actions == expected


def test_a_worker_that_drains_too_long_is_killed_once():
    (kill,) = steps({"prefill": 0}, [one("a", DRAINING, since=69.0)]).actions
    assert isinstance(kill, KillWorker)
    assert steps({"prefill": 0}, [one("a", DRAINING, since=69.0, killed=True)]).actions == ()
    assert steps({"prefill": 0}, [one("a", DRAINING, since=71.0)]).actions == ()


def test_a_worker_that_never_gets_ready_is_killed_and_replaced_after_a_pause():
    found = steps({"prefill": 1}, [one("a", STARTING, since=39.0)])
    assert [type(action) for action in found.actions] == [KillWorker]
    assert found.failures["prefill"].count == 1
    later = steps({"prefill": 1}, [one("a", STARTING, since=39.0, killed=True, alive=False)], failures=found.failures)
    assert later.actions == (ForgetWorker("a"),)
    assert later.failures["prefill"].count == 1
    assert "not ready after 60 s" in later.problems["prefill"]
    again = steps({"prefill": 1}, failures=found.failures, now_s=101.0)
    assert again.actions == (StartWorker("prefill", ("g0",)),)


def test_workers_that_fail_are_started_again_with_growing_pauses_up_to_a_bound():
    failures: dict[str, Failures] = {}
    now_s, pauses = 0.0, []
    for _ in range(12):
        dead = one("a", since=now_s, alive=False, how_it_ended="exit code 3")
        found = steps({"prefill": 1}, [dead], now_s=now_s, failures=failures)
        assert found.actions == (ForgetWorker("a"),)
        assert "exit code 3" in found.problems["prefill"]
        failures = dict(found.failures)
        pauses.append(failures["prefill"].retry_at_s - now_s)
        now_s = failures["prefill"].retry_at_s
        assert steps({"prefill": 1}, now_s=now_s, failures=failures).actions == (StartWorker("prefill", ("g0",)),)
    assert pauses[:4] == [0.5, 1.0, 2.0, 4.0]
    assert pauses[-1] == LONGEST_PAUSE_S


def test_a_pool_that_was_stable_has_recovered():
    failed = {"prefill": Failures(5, 0.0, "it ended")}
    assert steps({"prefill": 1}, [one("a", since=80.0)], failures=failed).failures == failed
    assert steps({"prefill": 1}, [one("a", since=60.0)], failures=failed).failures == {}


def test_the_text_of_a_problem_stays_the_same_while_nothing_changes():
    failed = {"prefill": Failures(2, 130.0, "a ended: exit code 3")}
    texts = {steps({"prefill": 1}, failures=failed, now_s=now_s).problems["prefill"] for now_s in (100.0, 110.0, 129.0)}
    assert len(texts) == 1


def test_a_pool_is_seen_as_what_serves_and_what_leaves():
    workers = [
        one("a"),
        one("b", STARTING),
        one("c", DRAINING),
        one("d", killed=True),
        one("e", DRAINING, alive=False),
        one("f", pool="decode"),
    ]
    seen = pool_seen("prefill", 2, workers, "why not")
    assert (seen.wanted, seen.ready, seen.leaving) == (2, 1, 2)
    assert seen.problem is not None


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_no_gpu_is_held_twice_and_the_counts_are_reached(seed):
    rng = random.Random(seed)
    workers: list[WorkerSeen] = []
    failures: dict[str, Failures] = {}
    wanted = {"prefill": 0, "decode": 0}
    now_s, number = 0.0, 0
    for turn in range(200):
        quiet = turn >= 120
        now_s += rng.choice([0.1, 1.0, 10.0]) if not quiet else 40.0
        if not quiet and rng.random() < 0.2:
            wanted = {"prefill": rng.randrange(5), "decode": rng.randrange(3)}
        seen = []
        for worker in workers:
            ends = worker.killed or worker.stage is DRAINING or (not quiet and rng.random() < 0.1)
            stage = READY if worker.stage is STARTING and (quiet or rng.random() < 0.5) else worker.stage
            since = now_s if stage is not worker.stage else worker.since_s
            alive = not (ends and rng.random() < 0.7)
            seen.append(one(worker.worker, stage, pool=worker.pool, since=since, gpus=worker.gpus, alive=alive))
        found = next_steps(wanted, seen, RULES, failures, GPUS, now_s)
        failures, by_name = dict(found.failures), {worker.worker: worker for worker in seen}
        for action in found.actions:
            match action:
                case ForgetWorker(worker=name):
                    assert not by_name.pop(name).alive
                case KillWorker(worker=name) | DrainWorker(worker=name):
                    old = by_name[name]
                    by_name[name] = one(name, DRAINING, pool=old.pool, since=now_s, gpus=old.gpus)
                case StartWorker(pool=pool, gpus=gpus):
                    number += 1
                    by_name[f"w{number}"] = one(f"w{number}", STARTING, pool=pool, since=now_s, gpus=gpus)
        workers = list(by_name.values())
        held = [gpu for worker in workers for gpu in worker.gpus]
        assert len(held) == len(set(held))
    for pool, count in wanted.items():
        assert sum(worker.pool == pool and worker.stage is READY for worker in workers) == count
