"""Judges whether the loop works: settings, profile, model, ticks, readings, a decision, and its connector. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from bus_schemas import v1
from deploy.cli.verify.facts import BusFacts, Facts, SettingsFacts, Unknown
from deploy.cli.verify.verdicts import Check, CheckLine, Group, Verdict, listed, sentences
from deploy.views.freshness import tick_term_s, words
from deploy.views.site_view import DeploymentSummary
from deploy.views.status import trouble
from planner.domain.config import OperationMode

SETTINGS = Check(Group.FUNCTION, "settings")
PROFILE = Check(Group.FUNCTION, "profile")
MODEL = Check(Group.FUNCTION, "model")
TICKS = Check(Group.FUNCTION, "ticks")
READINGS = Check(Group.FUNCTION, "readings")
TRIAL = Check(Group.FUNCTION, "test decision")
CONNECTOR = Check(Group.FUNCTION, "connector")
REQUESTS = "requests"
ENDED = (v1.AckStatus.FAILED, v1.AckStatus.REJECTED)


def judge(facts: Facts, before: tuple[CheckLine, ...]) -> Iterator[CheckLine]:
    """The lines of the group. ``before``: the lines of the earlier groups, whose failures explain some of these."""
    yield from _settings(facts.settings)
    yield _model(facts.settings)
    bus = facts.bus
    if isinstance(bus, Unknown):
        for check in (TICKS, READINGS, TRIAL, CONNECTOR):
            yield check.skipped("the bus cannot be reached")
        return
    failed = {(line.group, line.name) for line in before if line.verdict is Verdict.FAIL}
    yield _ticks(bus, leaderless=(Group.INFRASTRUCTURE, "leader") in failed)
    yield _readings(bus, any(group is Group.PROMETHEUS for group, _ in failed))
    yield _trial(facts, bus)
    yield _connector(facts, bus)


def _settings(settings: SettingsFacts | Unknown) -> Iterator[CheckLine]:
    if isinstance(settings, Unknown):
        yield SETTINGS.skipped(settings.why)
        yield PROFILE.skipped(settings.why)
        return
    of_profile = [one for one in settings.problems if ".profile:" in one or (".pools." in one and "profile" in one)]
    others = [one for one in settings.problems if one not in of_profile]
    if others:
        yield SETTINGS.failed(sentences(others), "`wattscale planner check` with the same settings names each")
    else:
        yield SETTINGS.passed("as `wattscale planner check` accepts them")
    if of_profile:
        yield PROFILE.failed(
            sentences(of_profile),
            "put the profile's files there (in a cluster: the ConfigMap planner-profile-data), or correct `profile`",
        )
    elif settings.config is None:
        yield PROFILE.skipped("the settings cannot be used")
    else:
        yield _profiles(settings)


def _profiles(settings: SettingsFacts) -> CheckLine:
    deployments = settings.config.deployments if settings.config is not None else {}
    if dropped := [f"{name}: {line}" for name, one in deployments.items() for line in one.profile.dropped]:
        return PROFILE.warned(f"points left out: {sentences(dropped)}", "correct these points in the profile's files")
    return PROFILE.passed(sentences(f"{name}: {one.profile.name}" for name, one in deployments.items()))


def _model(settings: SettingsFacts | Unknown) -> CheckLine:
    if isinstance(settings, Unknown):
        return MODEL.skipped(settings.why)
    if unknown := [name for name, model in settings.models.items() if not model]:
        remedy = "set the deployment's model, or let the planner read its graph (kubernetes.mode)"
        return MODEL.warned(f"not known of {listed(unknown)}: metrics of any model are taken", remedy)
    how = {name: "detected" if name in settings.detected else "set" for name in settings.models}
    return MODEL.passed(sentences(f"{name}: {model} ({how[name]})" for name, model in settings.models.items()))


def _ticks(bus: BusFacts, *, leaderless: bool) -> CheckLine:
    if why := bus.unread.get("telemetry.plan"):
        return TICKS.skipped(why)
    if leaderless:
        return TICKS.skipped("no planner leads")
    if not bus.view.deployments:
        return TICKS.failed("no deployment is planned", "name one in the planner's settings")
    late = []
    for name, view in sorted(bus.view.deployments.items()):
        report = bus.planners.get(name)
        if view.record is None or report is None:
            late.append(f"{name}: no tick on the bus")
        elif report.age_s > tick_term_s(view.record):
            late.append(f"{name}: the newest tick is {words(report.age_s)} old")
    if late:
        return TICKS.failed(sentences(late), "see the planner's log and /readyz; does it know these deployments?")
    return TICKS.passed(sentences(f"{name}: {words(one.age_s)} ago" for name, one in bus.planners.items()))


def _readings(bus: BusFacts, unfit: bool) -> CheckLine:
    """Whether the newest ticks saw their deployment's load. ``unfit``: a line about Prometheus already says why not."""
    if why := bus.unread.get("telemetry.plan"):
        return READINGS.skipped(why)
    records = {name: view.record for name, view in bus.view.deployments.items() if view.record is not None}
    if not records:
        return READINGS.skipped("no tick on the bus")
    blind = {
        name: record.missing.get(REQUESTS, "not seen")
        for name, record in records.items()
        if REQUESTS not in record.observed
    }
    if blind and unfit:
        return READINGS.skipped("see the lines on Prometheus")
    if blind:
        texts = (f"{name}: no count of requests ({why})" for name, why in blind.items())
        return READINGS.failed(
            sentences(texts), "`wattscale explain DEPLOYMENT` lists what was read and what is missing"
        )
    return READINGS.passed(
        sentences(f"{name}: {record.observed[REQUESTS]:g} requests" for name, record in records.items())
    )


def _trial(facts: Facts, bus: BusFacts) -> CheckLine:
    """The decision that these settings give now, and whether the connector has every pool of it."""
    tested = facts.tested
    if isinstance(tested, Unknown):
        return TRIAL.skipped(tested.why)
    if not tested:
        return TRIAL.skipped(bus.unread.get("telemetry.plan", "no tick with readings is on the bus"))
    strange = []
    for name, counts in tested.items():
        ack = bus.view.deployments[name].ack
        known = set(ack.pools) | set(ack.replicas) if ack is not None else set()
        lacking = sorted({one.partition("=")[0] for one in counts.split()} - known) if known else []
        if lacking:
            strange.append(f"{name}: its connector reports no pool {listed(lacking)}")
    if strange:
        return TRIAL.failed(sentences(strange), "give settings and connector the same pools")
    texts = sentences(f"{name}: {counts}" for name, counts in tested.items())
    return TRIAL.passed(f"{texts} (advisory: sent to no one)")


def _connector(facts: Facts, bus: BusFacts) -> CheckLine:
    if why := bus.unread.get("decision.scaling") or bus.unread.get("ack.scaling"):
        return CONNECTOR.skipped(why)
    problems = [(name, text) for name in sorted(bus.view.deployments) if (text := _unseen(bus, name))]
    if problems:
        names = listed(name for name, _ in problems)
        kinds = "kubernetes|virtual|local|autoscaler"
        remedy = f"start the connector of {names} (`wattscale connector {kinds}`); its log says more"
        return CONNECTOR.failed(sentences(text for _, text in problems), remedy)
    decided = [name for name, view in bus.view.deployments.items() if view.decision is not None]
    if not decided:
        uses = {} if isinstance(bus.consumers, Unknown) else bus.consumers
        if waiting := [name for name, use in uses.items() if use is not None and use.waiting]:
            return CONNECTOR.passed(f"waiting for the first decision: {listed(waiting)}")
        advised = _only_advised(facts)
        return CONNECTOR.skipped("all deployments are advisory" if advised else "no decision has been published yet")
    partial = [
        name
        for name in decided
        if _status(bus, name) is v1.AckStatus.PARTIAL and not _never_answers(bus.view.deployments[name])
    ]
    if partial:
        reasons = (f"{name} carried out in part: {trouble(bus.view.deployments[name])}" for name in sorted(partial))
        return CONNECTOR.warned(sentences(reasons), "remove what each reason names; `wattscale decisions` has them all")
    return CONNECTOR.passed(sentences(_seen(bus, name) for name in sorted(decided)))


def _only_advised(facts: Facts) -> bool:
    config = None if isinstance(facts.settings, Unknown) else facts.settings.config
    return config is not None and all(one.mode is OperationMode.ADVISORY for one in config.deployments.values())


def _status(bus: BusFacts, name: str) -> v1.AckStatus | None:
    ack = bus.view.deployments[name].ack
    return None if ack is None else ack.status


def _unseen(bus: BusFacts, name: str) -> str:
    """Why a deployment's newest decision was not received, or the next one will not be; empty where all is well."""
    view = bus.view.deployments[name]
    decision, ack = view.decision, view.ack
    if decision is None or _never_answers(view):
        return ""
    same = ack is not None and ack.incarnation in {"", decision.incarnation}
    if ack is None or not same or ack.decision_id < decision.decision_id:
        last = "none" if ack is None or not same else f"#{ack.decision_id}"
        return f"{name}: decision #{decision.decision_id} has no answer (last answered: {last})"
    if ack.status in ENDED:
        return f"{name}: decision #{ack.decision_id} {ack.status}: {ack.reason}"
    use = None if isinstance(bus.consumers, Unknown) else bus.consumers.get(name)
    if use is not None and use.delivered and not use.waiting and not use.unanswered:
        return f"{name}: no connector waits for the next decision"
    return ""


def _never_answers(view: DeploymentSummary) -> bool:
    """Whether a connector is at work that only hands counts on, to autoscalers that carry them out unacknowledged."""
    return view.claim is not None and not view.claim.acknowledges


def _seen(bus: BusFacts, name: str) -> str:
    view = bus.view.deployments[name]
    number = view.decision.decision_id if view.decision is not None else -1
    if view.claim is not None and _never_answers(view):
        return f"{name}: {view.claim.holder} serves #{number} to autoscalers, of which no answer is expected"
    use = None if isinstance(bus.consumers, Unknown) else bus.consumers.get(name)
    waits = "waits for the next" if use is not None and use.waiting else "reads the stream itself"
    actuator = view.ack.actuator if view.ack is not None and view.ack.actuator else "its connector"
    return f"{name}: {actuator} answered #{number}, {waits}"
