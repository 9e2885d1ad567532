"""No readable message makes the core fail: any values that v1 allows, from the inbox to the encoded decisions."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas import codec, v1
from bus_schemas.v1 import Message
from planner.adapters.metrics.replica_counts import holders, with_replicas
from planner.core.intake import initial_state
from planner.core.step import react, step
from planner.domain.config import SizingMode
from planner.ports import StoredHistory
from planner.runtime.decision_event import DecisionEvent
from planner.runtime.decision_publisher import DecisionPublisher
from planner.runtime.inbox import Inbox
from planner.runtime.recorder import Recorder
from tests.sizes_of_runs import examples
from tests.unit.planner.core.small_site import SITE, D, deployment, planner, traffic
from tests.unit.planner.runtime.test_leader_term import ScriptedLink

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OFFSET_S = NOW.timestamp() - 1000.0
CONFIGS = [planner(deployment(sizing=sizing), budget_mw=4_000_000) for sizing in SizingMode] + [planner()]
NODES = ("n0", "n1")

times = st.sampled_from([datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC), NOW])
watts = st.sampled_from([0.0, 0.0004, 200.0, 700.0, 5000.0, 1e9])
some_watts = st.none() | watts
numbers = st.sampled_from([0, 1, -1, 2, 1000, 10**6, 10**9, 2**53, 2**63, 10**30, 10**400, -(10**400)])
reals = st.none() | st.sampled_from([0.0, -1.0, 1e-300, 1e9, 1e308, -1e308])
ids = st.sampled_from([-1, 0, 1, 2**52, 2**53 - 1, 2**53])
gpus = st.sampled_from(["g0", "g1", "x" * 253, "\x00"])
texts = st.sampled_from(["", "prefill", "decode", D, "zz", "\x00"])
health = st.sampled_from(list(v1.GpuHealth))
statuses = st.sampled_from(list(v1.AckStatus))
replicas = st.dictionaries(st.sampled_from(["prefill", "decode", "zz", ""]), numbers, max_size=3)
cards = st.builds(
    v1.GpuTelemetry,
    gpu=gpus,
    index=st.none() | numbers,
    draw_watts=some_watts,
    requested_watts=some_watts,
    enforced_watts=some_watts,
    default_watts=watts,
    min_watts=watts,
    max_watts=watts,
    energy_joules=reals,
    health=health,
    deployment=texts,
    pool=texts,
    role=texts,
    worker=texts,
    terminating=st.booleans(),
)
in_force = st.builds(
    v1.GpuInForce, gpu=gpus, requested_watts=some_watts, enforced_watts=some_watts, health=health, reset=st.booleans()
)
holds = st.builds(
    v1.GpuHold,
    hold_id=st.sampled_from(["h", "i"]),
    gpus=st.lists(gpus, max_size=3).map(tuple),
    cap_watts=watts,
    for_s=st.sampled_from([1e-9, 30.0, 600.0]),
    release=st.booleans(),
)
messages = st.one_of(
    st.builds(
        v1.NodeTelemetry,
        time=times,
        node=st.sampled_from(NODES),
        boot=texts,
        clock_s=reals,
        applied_decision_id=ids,
        gpus=st.lists(cards, max_size=3).map(tuple),
    ),
    st.builds(
        v1.PowerAck,
        time=times,
        node=st.sampled_from(NODES),
        decision_id=ids,
        applied_decision_id=ids,
        epoch=st.sampled_from([0, 1, 2, 10**30]),
        status=statuses,
        gpus=st.lists(in_force, max_size=3).map(tuple),
        boot=texts,
        clock_s=reals,
    ),
    st.builds(
        v1.ScalingAck,
        time=times,
        deployment=st.just(D),
        decision_id=ids,
        scaled_decision_id=ids,
        status=statuses,
        replicas=replicas,
        done=st.none() | numbers,
    ),
    st.builds(
        v1.BudgetChange,
        time=times,
        site=st.just(SITE),
        budget_watts=watts,
        effective_from=st.none() | times,
        effective_until=st.none() | times,
        release=st.booleans(),
        ramp_s=st.sampled_from([0.0, 1e-300, 1.0, 1e308]),
    ),
    st.builds(
        v1.DeploymentControl,
        time=times,
        deployment=st.just(D),
        action=st.sampled_from(["pause", "resume", "pin", "release"]),
        replicas=replicas,
    ),
    st.builds(v1.NodeControl, time=times, node=st.sampled_from(NODES), action=st.sampled_from(["remove", "restore"])),
    st.builds(v1.NodeControl, time=times, node=st.sampled_from(NODES), action=st.just("restore"), hold=holds),
)


def true_report() -> v1.NodeTelemetry:
    limits = {"enforced_watts": 700.0, "default_watts": 700.0, "min_watts": 200.0, "max_watts": 700.0}
    roles = ("prefill", "decode", "", "")
    held = tuple(
        v1.GpuTelemetry(gpu=f"g{n}", pool=role, role=role, deployment=D if role else "", worker=role, **limits)
        for n, role in enumerate(roles)
    )
    return v1.NodeTelemetry(time=NOW, node="n0", boot="a", clock_s=1.0, gpus=held)


@settings(max_examples=examples(40, 120))
@given(st.lists(messages, min_size=1, max_size=3), st.sampled_from(CONFIGS))
def test_any_values_that_the_contract_allows_are_decided_on(sent, config) -> None:
    now_s = 1000.0
    inbox = Inbox(lambda: None, lambda: None, lambda: now_s, OFFSET_S, config.deployments)
    inbox.begin()
    inbox.received(true_report(), 1)
    link = ScriptedLink(epoch=1)
    publisher = DecisionPublisher(link, config, StoredHistory(), inbox.expect, inbox.expect_power)
    recorder = Recorder(link, config, lambda: OFFSET_S, keep_journal=True)
    state = initial_state(config, 1, now_s, [], [])
    for number, (now_s, tick) in enumerate([(1000.0, True), (1030.0, False), (1040.0, True), (1070.0, True)]):
        if number == 1:
            for sequence, message in enumerate(sent, start=2):
                inbox.received(codec.decode(codec.encode(message)), sequence)
        held = holders(inbox.fresh_nodes(60.0))
        seen = {
            name: with_replicas(traffic(2.0), name, one.pools, held, inbox.acked_replicas(name))
            for name, one in config.deployments.items()
        }
        observation = inbox.take(seen if tick else {})
        state, plan = (step if tick else react)(state, observation, config, config.clock(now_s))
        publisher.renew_incarnations(observation.power_acks)
        out: list[Message] = publisher.messages(plan, NOW)
        out += recorder.records(DecisionEvent(observation, plan, state, now_s, tick, 1))
        for message in out:
            assert codec.decode(codec.encode(message)) == message
