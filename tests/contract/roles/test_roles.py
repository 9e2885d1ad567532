"""What each role may do on a real server, and what it is refused: by permission, and by the separation of accounts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nats.errors import Error as NatsError

from bus_schemas import v1
from bus_schemas.client import VirtualConnectorClient
from bus_schemas.errors import BusRefusedError, NotPermittedError, NotStoredError
from bus_schemas.jetstream import stream_admin
from bus_schemas.jetstream.connect import Bus, connect
from bus_schemas.jetstream.consumer import Consumer, Delivery, Durable, ensure
from bus_schemas.jetstream.consumers import maintain
from bus_schemas.jetstream.leader_election import Leadership
from bus_schemas.jetstream.publisher import Publisher, publish
from bus_schemas.jetstream.reader import last, last_per_subject
from bus_schemas.jetstream.settings import BusSettings
from bus_schemas.jetstream.watch import follow
from bus_schemas.subjects import Subjects
from deploy.nats.embedded import EmbeddedServer
from deploy.nats.roles import SiteAccounts, accounts, inbox_prefix
from tests.contract.bus import applied, outgoing, power, scaling, until

NODE, OTHER, NAME = "node-7.example", "node-8", "prod-llama"
SECRET = "not-a-secret"


def user(name: str) -> dict[str, str]:
    return {"user": name, "password": SECRET}


SITE = SiteAccounts(
    planners=(user("planner"),),
    operators=(user("operator"),),
    observers=(user("observer"),),
    agents={NODE: user("agent"), OTHER: user("agent-8")},
    connectors={"llama": (user("connector"), (NAME,))},
)
INBOXES = {
    "planner": inbox_prefix("planner"),
    "operator": inbox_prefix("operator"),
    "observer": inbox_prefix("observer"),
    "agent": inbox_prefix("agent", NODE),
    "agent-8": inbox_prefix("agent", OTHER),
    "connector": inbox_prefix("connector", "llama"),
}


@dataclass
class Guarded:
    """A server with the roles, and connections by role."""

    server: EmbeddedServer
    password: Path
    stack: AsyncExitStack
    open: dict[str, Bus] = field(default_factory=dict)

    async def as_(self, role: str) -> Bus:
        if role not in self.open:
            settings = BusSettings(
                servers=(self.server.url,),
                user=role,
                password_file=self.password,
                name=role,
                inbox_prefix=INBOXES[role],
                request_timeout_s=1.0,
            )
            self.open[role] = await connect(settings)
            self.stack.push_async_callback(self.open[role].close)
        return self.open[role]

    async def tails(self) -> dict[str, int]:
        """The last sequence of each stream; the bucket only follows the decisions."""
        bus = await self.as_("planner")
        names = [spec.name for spec in stream_admin.wanted(bus) if not spec.sources]
        return {name: (await bus.js.stream_info(name)).state.last_seq for name in names}


@asynccontextmanager
async def guarded_bus(folder: Path) -> AsyncIterator[Guarded]:
    """A server with the roles and the streams; the password of all is a file in ``folder``."""
    password = folder / "password"
    password.write_text(SECRET + "\n")
    async with EmbeddedServer(settings=accounts(Subjects(), SITE)) as server, AsyncExitStack() as stack:
        found = Guarded(server, password, stack)
        await stream_admin.apply(await found.as_("planner"))
        yield found


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with guarded_bus(tmp_path) as found:
        planner = await found.as_("planner")
        await ensure(planner, Durable.power(planner, NODE))
        await ensure(planner, Durable.power(planner, OTHER))
        yield found


async def refused(bus: Bus, subject: str, body: bytes = b"{}") -> bool:
    """Whether the server says that this subject is not ours, or answers with an error."""
    asking = asyncio.create_task(bus.nc.request(subject, body, timeout=20))
    try:
        await until(lambda: asking.done() or bus.denied(subject), f"an answer about {subject}", 30)
        if bus.denied(subject):
            return True
        return b"error" in (await asking).data
    except (NatsError, TimeoutError):
        return bus.denied(subject) is not None
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_everyone_can_do_their_work(guarded: Guarded) -> None:
    planner, agent, connector = [await guarded.as_(role) for role in ("planner", "agent", "connector")]
    observer, operator = await guarded.as_("observer"), await guarded.as_("operator")
    carried = []

    async def carry_out(delivery: Delivery) -> v1.Message:
        assert isinstance(delivery.message, v1.PowerDecision)
        carried.append(delivery.message.decision_id)
        return applied(delivery.message)

    durable = Durable.power(agent, NODE)
    result = agent.subjects.ack_power(NODE)
    loop = Consumer(agent, durable.stream, durable.name, durable.subject, carry_out, result_subject=result)
    tasks = [asyncio.create_task(loop.run()), asyncio.create_task(maintain(planner))]
    seen: list[v1.Message] = []

    async def watch() -> None:
        async for one in follow(observer, observer.subjects.all_acks(), 0):
            seen.append(one.message)  # noqa: PERF401  # one by one, as they come

    tasks.append(asyncio.create_task(watch()))
    leadership = Leadership(planner, "planner", 30)
    await leadership.acquire()
    client = VirtualConnectorClient(connector.nc, NAME, timeout_s=1.0)
    waiting = asyncio.create_task(client.wait())
    for number in range(3):
        batch = [outgoing(planner, power(NODE, number)), outgoing(planner, scaling(NAME, number))]
        await Publisher(planner, leadership).publish_batch(batch)
    await until(lambda: carried and carried[-1] == 2, "the agent")
    await asyncio.wait_for(waiting, 20)
    decision = await client.get()
    assert decision is not None
    await client.complete(decision)
    await publish(
        agent, agent.subjects.telemetry_node(NODE), v1.NodeTelemetry(time=decision.time, node=NODE, gpus=()), "t"
    )
    change = v1.BudgetChange(time=decision.time, site="local", budget_watts=9000.0)
    await publish(operator, operator.subjects.control_budget("local"), change, "b")
    await until(lambda: {type(one) for one in seen} == {v1.PowerAck, v1.ScalingAck}, "the observer")
    assert len(await last_per_subject(observer, observer.subjects.all_decisions())) == 2
    assert await last(observer, observer.subjects.control_budget("local")) is not None
    # A poisonous decision becomes the agent's dead letter.
    await publish(planner, planner.subjects.decision_power(NODE), power("stranger", 9), "poison")
    letters = planner.subjects.all_deadletters()

    async def letter() -> bool:
        return bool(await last_per_subject(planner, letters))

    await until(letter, "the dead letter")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for bus in (planner, agent, connector, observer, operator):
        assert not [text for text in bus.violations if "permission" in text.lower()], bus.settings.name


WRITES = [
    "wattscale.v1.decision.power.node-7_example",
    "wattscale.v1.decision.scaling.prod-llama",
    "wattscale.v1.lease.planner",
    "wattscale.v1.telemetry.plan.prod-llama",
    "wattscale.v1.control.budget.local",
    "wattscale.v1.ack.power.node-8",
    "wattscale.v1.telemetry.node.node-8",
    "wattscale.v1.deadletter.WATTSCALE_DECISIONS.power-node-8",
    "wattscale.stored.v1.decision.power.node-7_example",
]
API = [
    "$JS.API.STREAM.CREATE.EVIL",
    "$JS.API.STREAM.DELETE.WATTSCALE_DECISIONS",
    "$JS.API.STREAM.PURGE.WATTSCALE_DECISIONS",
    "$JS.API.STREAM.MSG.DELETE.WATTSCALE_DECISIONS",
    "$JS.API.STREAM.UPDATE.WATTSCALE_DECISIONS",
    "$JS.API.CONSUMER.CREATE.WATTSCALE_DECISIONS.evil",
    "$JS.API.CONSUMER.DURABLE.CREATE.WATTSCALE_DECISIONS.evil",
    "$JS.API.CONSUMER.DELETE.WATTSCALE_DECISIONS.power-node-8",
]
READS = [
    "$JS.API.CONSUMER.MSG.NEXT.WATTSCALE_DECISIONS.power-node-8",
    "$JS.API.DIRECT.GET.WATTSCALE_DECISIONS.wattscale.v1.decision.power.node-8",
    "$JS.API.DIRECT.GET.WATTSCALE_ACKS.wattscale.v1.ack.power.node-8",
    "$JS.API.STREAM.MSG.GET.WATTSCALE_DECISIONS",
    "$JS.API.CONSUMER.INFO.WATTSCALE_DECISIONS.power-node-8",
    "$JS.ACK.WATTSCALE_DECISIONS.power-node-8.1.1.1.1.0",
]


@pytest.mark.parametrize("role", ["agent", "connector", "observer", "operator"])
async def test_only_planners_decide_and_no_role_touches_what_is_not_its_own(guarded: Guarded, role: str) -> None:
    bus = await guarded.as_(role)
    before = await guarded.tails()
    forbidden = WRITES + API + (READS if role in ("agent", "connector") else [])
    if role == "operator":
        forbidden.remove("wattscale.v1.control.budget.local")
    for subject in forbidden:
        assert await refused(bus, subject), f"{role} may use {subject}"
    assert await guarded.tails() == before


@pytest.mark.parametrize(
    "subject", [one for one in API if "CREATE.WATT" not in one and "UPDATE" not in one and "DURABLE" not in one]
)
async def test_even_a_planner_deletes_nothing(guarded: Guarded, subject: str) -> None:
    bus = await guarded.as_("planner")
    assert await refused(bus, subject)


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        ("agent", "wattscale.v1.decision.power.node-8"),
        ("agent", "wattscale.v1.>"),
        ("agent", "wattscale.stored.>"),
        ("agent", "_INBOX.>"),
        ("agent", "_INBOX_agent_node-8.>"),
        ("agent", "$JS.>"),
        ("connector", "wattscale.stored.v1.decision.scaling.other"),
        ("connector", "wattscale.stored.v1.telemetry.plan.other"),
        ("observer", "_INBOX_planner.>"),
        ("observer", "$JS.>"),
    ],
)
async def test_no_role_listens_to_others(guarded: Guarded, role: str, subject: str) -> None:
    bus = await guarded.as_(role)
    await bus.nc.subscribe(subject)
    await bus.nc.flush()
    await until(lambda: bus.denied(subject), "the violation")


@pytest.mark.parametrize("role", ["agent", "connector", "observer", "operator"])
async def test_an_answer_to_a_reply_subject_is_never_stored(guarded: Guarded, role: str) -> None:
    """A question that one may ask, with a reply subject where one may not write."""
    planner, bus = await guarded.as_("planner"), await guarded.as_(role)
    await publish(planner, planner.subjects.decision_power(NODE), power(NODE, 0), "d")
    await publish(planner, planner.subjects.decision_scaling(NAME), scaling(NAME, 0), "s")
    await publish(await guarded.as_("agent"), planner.subjects.ack_power(NODE), applied(power(NODE, 0)), "a")
    before = await guarded.tails()
    questions = {
        "agent": [
            ("$JS.API.CONSUMER.MSG.NEXT.WATTSCALE_DECISIONS.power-node-7_example", b'{"batch":1,"no_wait":true}'),
            ("$JS.API.DIRECT.GET.WATTSCALE_ACKS.wattscale.v1.ack.power.node-7_example", b""),
        ],
        "connector": [("$JS.API.DIRECT.GET.WATTSCALE_DECISIONS.wattscale.v1.decision.scaling.prod-llama", b"")],
    }
    reading = [
        ("$JS.API.DIRECT.GET.WATTSCALE_DECISIONS", json.dumps({"last_by_subj": "wattscale.v1.decision.>"}).encode()),
        ("$JS.API.STREAM.INFO.WATTSCALE_DECISIONS", b""),
    ]
    for question, body in questions.get(role, reading):
        for target in (*WRITES, "wattscale.v1.ack.scaling.other", "$JS.API.STREAM.DELETE.WATTSCALE_ACKS"):
            await bus.nc.publish(question, body, reply=target)
    await bus.nc.flush()
    await asyncio.sleep(0.5)
    assert await guarded.tails() == before


async def test_refusals_are_reported_as_such(guarded: Guarded) -> None:
    agent = await guarded.as_("agent")
    with pytest.raises(NotStoredError, match="not permitted"):
        await publish(agent, agent.subjects.ack_power(OTHER), applied(power(OTHER, 0)), "x")
    with pytest.raises(NotPermittedError):
        await last(agent, agent.subjects.ack_power(OTHER))


async def test_wrong_and_missing_credentials_are_refused_at_once(guarded: Guarded, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("guess")
    for settings in (
        BusSettings(servers=(guarded.server.url,), user="planner", password_file=wrong, connect_timeout_s=300),
        BusSettings(servers=(guarded.server.url,), connect_timeout_s=300),
        BusSettings(servers=(guarded.server.url,), token_file=wrong, connect_timeout_s=300),
    ):
        async with asyncio.timeout(60):
            with pytest.raises(BusRefusedError) as caught:
                await connect(settings)
        assert "guess" not in str(caught.value)


async def test_the_walls_are_what_stops_it(tmp_path: Path) -> None:
    """The same question in one shared account, under the same permissions, forges a decision."""
    password = tmp_path / "password"
    password.write_text(SECRET)
    apart = accounts(Subjects(), SITE)["accounts"]
    users = [one for account in apart.values() for one in account["users"]]
    shared = {"accounts": {"ALL": {"jetstream": "enabled", "users": users}}}
    async with EmbeddedServer(settings=shared) as server, AsyncExitStack() as stack:
        flat = Guarded(server, password, stack)
        planner = await flat.as_("planner")
        await stream_admin.apply(planner)
        await ensure(planner, Durable.power(planner, NODE))
        await publish(planner, planner.subjects.decision_power(NODE), power(NODE, 0), "d")
        agent = await flat.as_("agent")
        await publish(agent, agent.subjects.ack_power(NODE), applied(power(NODE, 0)), "a")
        question = "$JS.API.DIRECT.GET.WATTSCALE_ACKS.wattscale.v1.ack.power.node-7_example"
        await agent.nc.publish(question, b"", reply=planner.subjects.decision_power(OTHER))

        async def forged() -> bool:
            found = await planner.js.stream_info("WATTSCALE_DECISIONS")
            return found.state.last_seq == 2

        await until(forged, "the forged decision")
