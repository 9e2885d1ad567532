"""Judges the bus itself: streams, what they remember, the lead, clocks and versions. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.cli.verify.facts import BusFacts, Facts, OldServer, Unknown
from deploy.cli.verify.verdicts import Check, CheckLine, Group, listed, sentences
from deploy.views.freshness import CLOCKS_APART_S, leader, other_budgets

BUS = Check(Group.INFRASTRUCTURE, "bus")
STREAMS = Check(Group.INFRASTRUCTURE, "streams")
MEMORY = Check(Group.INFRASTRUCTURE, "decisions kept")
RESTORED = Check(Group.INFRASTRUCTURE, "bus not restored")
LEADER = Check(Group.INFRASTRUCTURE, "leader")
PROBLEMS = Check(Group.INFRASTRUCTURE, "planners agree")
CLOCKS = Check(Group.INFRASTRUCTURE, "clocks")
VERSIONS = Check(Group.INFRASTRUCTURE, "versions")
RESTORE_REMEDY = (
    "stop all planners for a minute and start them again: the next leader charges every node that does not answer at "
    "its highest limits; then start or remove (`wattscale node remove`) the nodes named here"
)


def judge(facts: Facts) -> Iterator[CheckLine]:
    """The lines of the group."""
    bus = facts.bus
    if isinstance(bus, Unknown):
        old = isinstance(bus, OldServer)
        where = "start the server, or name another one or another login (--nats-url, --context)"
        yield BUS.passed("a server answers") if old else BUS.failed(bus.why, where)
        for check in (STREAMS, MEMORY, RESTORED, LEADER, PROBLEMS, CLOCKS):
            yield check.skipped("the server is too old" if old else "the bus cannot be reached")
        yield _versions(facts, bus)
        return
    yield BUS.passed(f"connected to {bus.servers}")
    yield _streams(bus)
    yield _memory(bus)
    yield _restored(bus)
    yield _leader(bus)
    yield _problems(bus)
    yield _clocks(bus)
    yield _versions(facts, bus)


def missing_streams(bus: BusFacts) -> tuple[str, ...]:
    """The streams that are not there."""
    changes = () if isinstance(bus.changes, Unknown) else bus.changes
    return tuple(change.stream for change in changes if change.what == "create")


def _streams(bus: BusFacts) -> CheckLine:
    if isinstance(bus.changes, Unknown):
        what, _, remedy = bus.missing.rpartition(": ")
        return STREAMS.failed(what, remedy) if bus.missing else STREAMS.skipped(bus.changes.why)
    if gone := missing_streams(bus):
        return STREAMS.failed(f"missing: {listed(gone)}", "wattscale streams apply")
    if not bus.changes:
        return STREAMS.passed("all there, as this version needs them")
    remedy = "wattscale streams apply"
    if any(change.refused for change in bus.changes):
        remedy += "; what it refuses only an operator may change on the server"
    return STREAMS.failed(sentences(f"{one.stream}: {one.what}" for one in bus.changes), remedy)


def _memory(bus: BusFacts) -> CheckLine:
    if isinstance(bus.forgets, Unknown):
        return MEMORY.skipped(bus.forgets.why)
    if bus.forgets:
        what, _, remedy = bus.forgets.partition(": ")
        return MEMORY.failed(what, remedy)
    return MEMORY.passed("the last decision of a silent node outlives any silence")


def _restored(bus: BusFacts) -> CheckLine:
    if isinstance(bus.put_back, Unknown):
        return RESTORED.skipped(bus.put_back.why)
    if bus.put_back:
        return RESTORED.failed(f"an older copy: {sentences(bus.put_back)}", RESTORE_REMEDY)
    return RESTORED.passed("no node has answered anything newer than the bus holds")


def _leader(bus: BusFacts) -> CheckLine:
    if why := bus.unread.get("lease"):
        return LEADER.skipped(why)
    who = leader(bus.view, bus.now)
    if who is not None:
        return LEADER.passed(who)
    if bus.view.lease_flaw:
        return LEADER.failed(bus.view.lease_flaw, "start a planner: it replaces what is not a lease")
    return LEADER.failed("no planner leads", "start `wattscale planner run`; where one runs, its /readyz says why not")


def _problems(bus: BusFacts) -> CheckLine:
    """What planners report; a second agent is the agents' own line."""
    if why := bus.unread.get("lease") or bus.unread.get("telemetry.plan"):
        return PROBLEMS.skipped(why)
    if differing := other_budgets(bus.view, bus.now):
        return PROBLEMS.failed(sentences(differing), "give all planners of the site the same settings")
    records = [view.record for view in bus.view.deployments.values() if view.record is not None]
    noted = sorted({one.text for record in records for one in record.problems if one.code != "second_agent"})
    if noted:
        return PROBLEMS.warned(sentences(noted), "see the planner's log; each is named for up to five minutes")
    return PROBLEMS.passed(
        f"{len(bus.view.standby)} stand by" if bus.view.standby else "one planner, and no problem around it"
    )


def _clocks(bus: BusFacts) -> CheckLine:
    senders = [(f"the agent of {node}", report) for node, report in bus.nodes.items()]
    senders += [(f"the planner of {name}", report) for name, report in bus.planners.items()]
    senders += [(f"the connector of {name}", report) for name, report in bus.connectors.items()]
    off = {who: report.ahead_s for who, report in senders if abs(report.ahead_s) > CLOCKS_APART_S}
    if not isinstance(bus.own_ahead_s, Unknown) and abs(bus.own_ahead_s) > CLOCKS_APART_S:
        off["this machine"] = bus.own_ahead_s
    if off:
        texts = (f"{who} is {abs(s):.0f} s {'ahead of' if s > 0 else 'behind'} the server" for who, s in off.items())
        return CLOCKS.failed(sentences(texts), "set the clocks there, and keep them by NTP or chrony")
    if not senders:
        return CLOCKS.skipped("no sender has reported")
    return CLOCKS.passed(f"{len(senders)} senders within {CLOCKS_APART_S:g} s of the server")


def _versions(facts: Facts, bus: BusFacts | Unknown) -> CheckLine:
    known = ", ".join(facts.versions)
    if isinstance(bus, OldServer):
        return VERSIONS.failed(bus.cause, bus.remedy)
    if isinstance(bus, Unknown):
        return VERSIONS.skipped(f"the server's is not known; {known}")
    return VERSIONS.passed(f"nats-server {bus.version}, {known}")
