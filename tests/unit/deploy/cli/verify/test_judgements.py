"""Each fact that is changed alone is named by its own line, and by no other that fails."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ET
from typing import Any

import pytest

from agent.core.scaling.autoscaler.lost_steps import LostSteps
from agent.core.scaling.kubernetes.needed_rights import Right
from agent.runtime.preflight import Finding, Status
from bus_schemas import v1
from bus_schemas.jetstream.stream_admin import StreamChange
from deploy.cli.verify.facts import (
    AnnotatedPod,
    ClusterFacts,
    ConsumerUse,
    Facts,
    MetricFacts,
    NewestReport,
    OldServer,
    RightsFacts,
    SettingsFacts,
    Unknown,
)
from deploy.cli.verify.judge_automation import in_turns
from deploy.cli.verify.verdicts import CheckLine, Group, Verdict
from deploy.cli.verify.verify_command import judged
from deploy.cli.verify.verify_report import as_json, as_junit, as_text
from tests.integration.planner.stage import NAME
from tests.unit.deploy.cli.verify.healthy_facts import (
    NODES,
    SELECTOR,
    SERIES,
    bus,
    claim,
    healthy,
    planner_config,
    power,
    power_ack,
    record,
    scaling,
    scaling_ack,
    telemetry,
)

FAIL, WARN = Verdict.FAIL, Verdict.WARN


def of(lines: tuple[CheckLine, ...], *verdicts: Verdict) -> dict[str, CheckLine]:
    return {line.name: line for line in lines if line.verdict in verdicts}


def metrics(**changes: Any) -> MetricFacts:
    found = healthy().metrics
    assert isinstance(found, MetricFacts)
    return dataclasses.replace(found, **changes)


def without(label: str) -> MetricFacts:
    series = (dataclasses.replace(one, labels={k: v for k, v in one.labels.items() if k != label}) for one in SERIES)
    return metrics(series=tuple(series))


def test_every_line_of_a_healthy_site_passes() -> None:
    lines = judged(healthy())
    assert of(lines, Verdict.FAIL, Verdict.WARN, Verdict.SKIPPED) == {}
    assert not any(line.remedy for line in lines)


def test_the_groups_have_at_least_the_thirteen_checks_of_the_guide() -> None:
    lines = judged(healthy())
    least = {
        Group.INFRASTRUCTURE: 3,
        Group.AUTOMATION: 3,
        Group.PROMETHEUS: 3,
        Group.FUNCTION: 3,
        Group.HARDWARE: 1,
    }
    for group, count in least.items():
        assert len([line for line in lines if line.group is group]) >= count
    assert len({(line.group, line.name) for line in lines}) == len(lines)


CREATE = StreamChange("WATTSCALE_ACKS", "create")
GROWN = StreamChange("WATTSCALE_ACKS", "max_bytes 1 -> 2")
SILENT = {"node-0": NewestReport(0.5, 0.0), "node-1": NewestReport(90.0, 0.0)}
LATE_CLOCK = {"node-0": NewestReport(0.5, 0.0), "node-1": NewestReport(0.5, -3600.0)}
SECOND = {"node-0": ("a", "b", "a", "b"), "node-1": ("c", "c")}
RIGHT = Right("ns", "patch", "apps", "deployments", "scale")
OTHER_LEADER = v1.Lease(time=healthy().bus.now, holder="planner-0", ttl_s=10, released=True)  # type: ignore[union-attr]
ABOVE = telemetry("node-0", enforced_watts=700)
ACK_ABOVE = power_ack("node-0", gpus=(v1.GpuInForce(gpu="GPU-node-0", requested_watts=700, enforced_watts=700),))
HUNGRY = telemetry("node-0", draw_watts=4500)
SMALL = [power(node, budget_watts=300) for node in NODES]
IDLE = [telemetry(node, draw_watts=80) for node in NODES]
QUARANTINED = telemetry("node-1", health=v1.GpuHealth.QUARANTINED)
NO_REQUESTS = record(observed={"interval_s": 2.0}, missing={"requests": "no_data"})
NO_PROFILE = f"deployments.{NAME}.profile: no folder /profiles"

OLD_SERVER = OldServer(
    "both", "NATS at nats://n: nats-server 2.11.11 is older than 2.12.1", "update it to 2.12.1 or newer"
)

ROWS: dict[str, tuple[Facts, str, str, str]] = {
    "missing stream": (healthy(bus(changes=(CREATE,))), "streams", "WATTSCALE_ACKS", "streams apply"),
    "changed stream": (healthy(bus(changes=(GROWN,))), "streams", "max_bytes 1 -> 2", "streams apply"),
    "forgetful": (healthy(bus(forgets="S forgets: run `x`")), "decisions kept", "S forgets", "run `x`"),
    "restored": (healthy(bus(put_back=("node-0 answered 9",))), "bus not restored", "node-0", "stop all planners"),
    "leaderless": (healthy(bus(OTHER_LEADER)), "leader", "no planner leads", "planner run"),
    "clock": (healthy(bus(nodes=LATE_CLOCK)), "clocks", "agent of node-1 is 3600 s behind", "NTP"),
    "own clock": (healthy(bus(own_ahead_s=60.0)), "clocks", "this machine is 60 s ahead", "NTP"),
    "old server": (healthy(OLD_SERVER), "versions", "nats-server 2.11.11 is older", "update it to 2.12"),
    "silent": (healthy(bus(nodes=SILENT)), "agents", "node-1 silent", "node remove"),
    "GPU node": (
        healthy(cluster=ClusterFacts((*NODES, "node-2"), ())),
        "agents",
        "node-2 has no agent",
        "start the agent",
    ),
    "second agent": (healthy(bus(boots=SECOND)), "one agent per node", "node-0", "lock_file"),
    "verb": (healthy(rights=RightsFacts(15, (RIGHT,))), "rights", "patch on deployments/scale", "verbs: [patch]"),
    "API": (healthy(rights=RightsFacts(15, trouble="no answer")), "rights", "no answer", "--kubeconfig"),
    "annotation": (
        healthy(cluster=ClusterFacts(NODES, (AnnotatedPod("ns/worker", None, "'lots'"),))),
        "annotations",
        "lots",
        "whole number",
    ),
    "limit": (
        healthy(cluster=ClusterFacts(NODES, (AnnotatedPod("ns/worker", 250),))),
        "annotations",
        "400 W of 250 W",
        "agent's log",
    ),
    "Prometheus": (healthy(metrics=metrics(trouble="refused")), "reachable", "refused", "prometheus.url"),
    "no series": (healthy(metrics=metrics(series=())), "series", "no metric", "/targets"),
    "no namespace": (healthy(metrics=without("dynamo_namespace")), "labels", "lack the label", "dynamo_namespace"),
    "no component": (healthy(metrics=without("dynamo_component")), "labels", "lack the label", "dynamo_component"),
    "other model": (
        healthy(metrics=metrics(selectors={NAME: dataclasses.replace(SELECTOR, model="other")})),
        "labels",
        "no series of model other",
        "model",
    ),
    "other namespace": (
        healthy(metrics=metrics(selectors={NAME: dataclasses.replace(SELECTOR, namespace="other")})),
        "labels",
        f"there are {NAME}",
        "namespace",
    ),
    "stale": (healthy(metrics=metrics(ages_s={NAME: 90.0})), "freshness", "90 s ago", "target"),
    "settings": (healthy(settings=SettingsFacts(("sites.a: bad",))), "settings", "sites.a", "planner check"),
    "profile": (healthy(settings=SettingsFacts((NO_PROFILE,))), "profile", "/profiles", "planner-profile-data"),
    "tick": (healthy(bus(planners={NAME: NewestReport(200.0, 0.0)})), "ticks", "3 min old", "/readyz"),
    "blind": (healthy(bus(NO_REQUESTS)), "readings", "no_data", "explain"),
    "pool": (healthy(tested={NAME: "prefill=1 decode=2"}), "test decision", "no pool prefill", "same pools"),
    "unanswered": (healthy(bus(scaling(decision_id=9))), "connector", "#9 has no answer", "start the connector"),
    "failed": (
        healthy(bus(scaling_ack(status=v1.AckStatus.FAILED, reason="no quota"))),
        "connector",
        "no quota",
        "connector",
    ),
    "no connector": (
        healthy(bus(consumers={NAME: ConsumerUse(0, 3, 0)})),
        "connector",
        "no connector waits",
        "start the connector",
    ),
    "cap": (
        healthy(bus(ABOVE, ACK_ABOVE), cluster=Unknown("none")),
        "caps in force",
        "700 W, 400 W granted",
        "another tool",
    ),
    "unapplied": (healthy(bus(power("node-0", decision_id=4))), "caps in force", "#4 is not applied", "agent's log"),
    "minimum": (healthy(bus(record(budget_watts=300), *SMALL, *IDLE)), "smallest caps", "400 W of 300 W", "budget set"),
    "draw": (healthy(bus(HUNGRY)), "draw", "4,800 W of 4,000 W", "margin_watts"),
    "lost GPU": (healthy(bus(QUARANTINED)), "GPUs", "GPU-node-1 quarantined", "reset"),
    "driver": (
        healthy(hardware=(Finding("driver", Status.FAIL, "not loaded", "install it"),)),
        "driver here",
        "not loaded",
        "install it",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_what_is_broken_alone_is_named_alone(row: str) -> None:
    facts, name, detail, remedy = ROWS[row]
    failed = of(judged(facts), FAIL)
    assert list(failed) == [name], failed
    assert detail in failed[name].detail
    assert remedy in failed[name].remedy


def test_a_lower_cap_than_granted_is_named_while_a_planner_leads() -> None:
    lowered = telemetry("node-0", enforced_watts=200)
    facts = healthy(bus(lowered), cluster=Unknown("none"))
    assert list(of(judged(facts), FAIL)) == ["caps in force"]
    without_leader = healthy(bus(lowered, OTHER_LEADER), cluster=Unknown("none"))
    assert list(of(judged(without_leader), FAIL)) == ["leader"]


def test_a_budget_that_caps_exceed_is_named() -> None:
    small = [power(node, budget_watts=600) for node in NODES]
    assert list(
        of(judged(healthy(bus(record(budget_watts=600), *small, HUNGRY.model_copy(update={"gpus": ()})))), FAIL)
    )
    lines = judged(healthy(bus(record(budget_watts=700), *[power(node, budget_watts=700) for node in NODES])))
    assert list(of(lines, FAIL)) == ["budget"]
    assert "caps of 800 W of 700 W" in of(lines, FAIL)["budget"].detail


def test_expected_gpus_is_recommended_and_compared() -> None:
    found = planner_config()
    unset = {name: dataclasses.replace(site, expected_gpus=None) for name, site in found.sites.items()}
    more = {name: dataclasses.replace(site, expected_gpus=3) for name, site in found.sites.items()}
    for sites, verdict, words in ((unset, WARN, "expected_gpus: 2"), (more, FAIL, "start the agents")):
        settings = SettingsFacts((), dataclasses.replace(found, sites=sites), {NAME: "m"})
        line = of(judged(healthy(settings=settings)), verdict)["expected GPUs"]
        assert words in line.remedy
    note = v1.Reason(code="expected_gpus", text="expected_gpus is not set and 2 GPUs have reported")
    noted = healthy(bus(record(notes=(note,))), settings=Unknown("none"))
    assert "2 GPUs" in of(judged(noted), WARN)["expected GPUs"].detail


def test_an_autoscaler_that_loses_single_steps_is_named_with_what_to_do() -> None:
    lost = LostSteps("prod", "llama-decode", NAME, "decode", 10, ("scaleUp.tolerance",))
    facts = bus()
    facts.view.claimed(NAME, claim("autoscalers of namespace lab cannot be read: 403", lost.sentence))
    lines = judged(healthy(facts))
    assert of(lines, FAIL) == {}
    line = of(lines, WARN)["single steps"]
    assert "prod/llama-decode ignores single steps of pool decode" in line.detail
    assert "from 10 replicas on" in line.detail
    assert "scaleUp.tolerance is not set in the server's copy" in line.detail
    assert "namespace lab cannot be read" in line.detail
    assert line.remedy.startswith("set tolerance: '0' under scaleUp and scaleDown")
    facts.view.claimed(NAME, claim("autoscalers of namespace lab cannot be read: 403"))
    assert "connector's log" in of(judged(healthy(facts)), WARN)["single steps"].remedy
    facts.view.claimed(NAME, claim().model_copy(update={"released": True}))
    assert "no autoscaler is known" in of(judged(healthy(facts)), Verdict.PASS)["single steps"].detail
    unread = bus(unread={"claim": "this login may not read WATTSCALE_ACKS"})
    assert "may not read" in of(judged(healthy(unread)), Verdict.SKIPPED)["single steps"].detail


UNUSED = {NAME: ConsumerUse(0, 0, 0)}


@pytest.mark.parametrize("consumers", [{NAME: None}, UNUSED, Unknown("no right")])
def test_a_connector_that_never_acknowledges_passes_while_it_holds_its_claim(consumers: Any) -> None:
    facts = bus(consumers=consumers)
    facts.view.deployments[NAME].ack = None
    serving = claim().model_copy(update={"acknowledges": False, "holder": "autoscaler on host"})
    facts.view.claimed(NAME, serving)
    lines = judged(healthy(facts))
    assert of(lines, FAIL, WARN) == {}
    detail = of(lines, Verdict.PASS)["connector"].detail
    assert detail == f"{NAME}: autoscaler on host serves #7 to autoscalers, of which no answer is expected"
    for gone in (serving.model_copy(update={"released": True}), claim()):
        facts.view.claimed(NAME, gone)
        failed = of(judged(healthy(facts)), FAIL)
        assert list(failed) == ["connector"]
        assert "autoscaler" in failed["connector"].remedy


def test_answers_of_an_earlier_connector_are_no_verdict_on_one_that_never_acknowledges() -> None:
    for status in (v1.AckStatus.FAILED, v1.AckStatus.PARTIAL):
        facts = bus(scaling_ack(decision_id=6, scaled_decision_id=6, status=status, reason="no quota"))
        facts.view.claimed(NAME, claim().model_copy(update={"acknowledges": False}))
        assert of(judged(healthy(facts)), FAIL, WARN) == {}


def test_a_second_writer_is_named_with_the_pool_whose_count_it_sets() -> None:
    words = "decode: a person with kubectl-edit set 4 replicas where the decision has 3"
    lines = judged(healthy(bus(scaling_ack(status=v1.AckStatus.PARTIAL, reason=words))))
    assert of(lines, FAIL) == {}
    line = of(lines, WARN)["connector"]
    assert words in line.detail
    assert NAME in line.detail
    assert "remove" in line.remedy


def test_what_cannot_be_read_is_skipped_and_never_failed() -> None:
    lost = bus(unread={"telemetry.node": "WATTSCALE_TELEMETRY does not answer"}, changes=(CREATE,))
    lines = judged(healthy(lost))
    assert list(of(lines, FAIL)) == ["streams"]
    assert "WATTSCALE_TELEMETRY" in of(lines, Verdict.SKIPPED)["agents"].detail
    no_right = bus(
        changes=Unknown("no right"), forgets=Unknown("no right"), put_back=Unknown("x"), consumers=Unknown("x")
    )
    assert of(judged(healthy(no_right)), FAIL, WARN) == {}


def test_without_a_bus_all_that_needs_it_is_skipped() -> None:
    lines = judged(healthy().__class__(bus=Unknown("refused")))
    assert list(of(lines, FAIL)) == ["bus"]
    assert len(lines) == len(judged(healthy()))
    assert of(lines, Verdict.PASS) == {}


def test_a_restart_is_no_second_agent() -> None:
    assert not in_turns(("a", "a", "b", "b", "c"))
    assert in_turns(("a", "b", "a"))
    assert not in_turns(())


def test_reports_have_every_line() -> None:
    lines = judged(healthy(bus(QUARANTINED), cluster=Unknown("no cluster")))
    text, values = as_text(lines), json.loads(json.dumps(as_json(lines)))
    assert f"{len(lines)} checks: " in text
    assert "-> drain the node and reset the GPU, or reboot it" in text
    assert values["counts"]["fail"] == 1
    assert [one["check"] for one in values["checks"]] == [line.name for line in lines]
    suites = ET.fromstring(as_junit(lines))  # our own
    cases = suites.findall("testsuite/testcase")
    assert len(cases) == len(lines)
    (failure,) = suites.findall("testsuite/testcase/failure")
    assert "quarantined" in failure.attrib["message"]
    assert sum(int(suite.attrib["failures"]) for suite in suites) == 1
    assert len(suites.findall("testsuite/testcase/skipped")) == values["counts"]["skipped"]


def test_a_warning_is_a_failure_of_junit_only_where_strict() -> None:
    found = planner_config()
    unset = {name: dataclasses.replace(site, expected_gpus=None) for name, site in found.sites.items()}
    lines = judged(healthy(settings=SettingsFacts((), dataclasses.replace(found, sites=unset), {NAME: "m"})))
    assert "<failure" not in as_junit(lines)
    assert "<failure" in as_junit(lines, strict=True)
