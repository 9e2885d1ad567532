"""Judges what runs by itself: agents, their number, their uniqueness, rights and annotations. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from agent.core.scaling.kubernetes.needed_rights import manifest_lines
from agent.runtime.preflight import Status
from bus_schemas import v1
from deploy.cli.verify.facts import BusFacts, Facts, Unknown
from deploy.cli.verify.verdicts import Check, CheckLine, Group, listed, sentences
from deploy.views.budgets import SAME_WATTS
from deploy.views.freshness import words
from planner.domain.config import SiteConfig

AGENTS = Check(Group.AUTOMATION, "agents")
GPUS = Check(Group.AUTOMATION, "expected GPUs")
SINGLE = Check(Group.AUTOMATION, "one agent per node")
RIGHTS = Check(Group.AUTOMATION, "rights")
ANNOTATIONS = Check(Group.AUTOMATION, "annotations")
STEPS = Check(Group.AUTOMATION, "single steps")


def judge(facts: Facts) -> Iterator[CheckLine]:
    """The lines of the group."""
    bus = facts.bus
    if isinstance(bus, Unknown):
        for check in (AGENTS, GPUS, SINGLE, STEPS):
            yield check.skipped("the bus cannot be reached")
    else:
        yield _agents(facts, bus)
        yield _gpus(facts, bus)
        yield _single(bus)
        yield _steps(bus)
    yield _rights(facts)
    yield _annotations(facts)


def silent_nodes(facts: Facts, bus: BusFacts) -> dict[str, float | None]:
    """Nodes without a report within their term, and since when in seconds; without those that were declared gone."""
    found: dict[str, float | None] = {}
    for node in sorted(set(bus.view.nodes) - bus.removed):
        report = bus.nodes.get(node)
        if report is None or report.age_s > facts.node_term_s(node):
            found[node] = None if report is None else report.age_s
    return found


def _agents(facts: Facts, bus: BusFacts) -> CheckLine:
    if why := bus.unread.get("telemetry.node"):
        return AGENTS.skipped(why)
    cluster = () if isinstance(facts.cluster, Unknown) else facts.cluster.gpu_nodes
    without = [] if isinstance(cluster, Unknown) else [node for node in cluster if node not in bus.nodes]
    silent = silent_nodes(facts, bus)
    texts = [f"{node} silent" + ("" if age_s is None else f" for {words(age_s)}") for node, age_s in silent.items()]
    texts += [f"GPU node {node} has no agent" for node in without]
    if texts:
        remedy = "start the agent there (`wattscale agent check` says what it lacks), or `wattscale node remove NODE`"
        return AGENTS.failed(sentences(texts), remedy)
    if not bus.view.nodes:
        config = None if isinstance(facts.settings, Unknown) else facts.settings.config
        if config is not None and not config.sites:
            return AGENTS.skipped("no watts are planned, so no agent is needed")
        return AGENTS.failed("no agent has reported", "start `wattscale agent power` on every GPU node")
    return AGENTS.passed(f"{len(bus.view.nodes) - len(bus.removed & set(bus.view.nodes))} nodes report")


def _reported(bus: BusFacts, site: SiteConfig) -> int:
    return sum(
        len(view.telemetry.gpus)
        for node, view in bus.view.nodes.items()
        if view.telemetry is not None and node not in bus.removed and any(fnmatchcase(node, p) for p in site.nodes)
    )


def _gpus(facts: Facts, bus: BusFacts) -> CheckLine:
    if why := bus.unread.get("telemetry.node"):
        return GPUS.skipped(why)
    config = None if isinstance(facts.settings, Unknown) else facts.settings.config
    if config is None:
        return _gpus_noted(bus)
    if not config.sites:
        return GPUS.skipped("no watts are planned")
    texts, counts = [], []
    for name, site in config.sites.items():
        reported = _reported(bus, site)
        if site.expected_gpus is None:
            risk = "a GPU that never reported is charged nothing"
            return GPUS.warned(f"site {name}: not set, {risk}", f"set sites.{name}.expected_gpus: {reported}")
        counts.append(f"site {name}: {reported} of {site.expected_gpus}")
        if reported != site.expected_gpus:
            texts.append(counts[-1])
    if texts:
        return GPUS.failed(sentences(texts), "start the agents that are missing, or correct expected_gpus")
    return GPUS.passed(sentences(counts))


def _gpus_noted(bus: BusFacts) -> CheckLine:
    """From the notes of plan records, where the settings are not at hand."""
    records = [view.record for view in bus.view.deployments.values() if view.record is not None]
    noted = sorted({f"site {r.site}: {one.text}" for r in records for one in r.notes if one.code == "expected_gpus"})
    if noted:
        return GPUS.warned(
            sentences(noted), "set the site's expected_gpus to the number of its GPUs, or start what is missing"
        )
    if not records:
        return GPUS.skipped(bus.unread.get("telemetry.plan", "no plan record is on the bus"))
    return GPUS.passed("as the planner's settings have it")


def _single(bus: BusFacts) -> CheckLine:
    if why := bus.unread.get("telemetry.node"):
        return SINGLE.skipped(why)
    if double := doubled(bus):
        remedy = "stop one of the two; give agents a lock_file on the host, so that the second waits"
        return SINGLE.failed(f"two agents report for {listed(double)}", remedy)
    return SINGLE.passed(f"{len(bus.boots)} nodes, each by one agent")


def _steps(bus: BusFacts) -> CheckLine:
    """As connectors note it that read HorizontalPodAutoscalers back."""
    if why := bus.unread.get("claim"):
        return STEPS.skipped(why)
    claims = [view.claim for view in bus.view.deployments.values() if view.claim is not None]
    notes = [note.partition("; ") for claim in claims for note in claim.notes]
    if notes:
        remedy = next((what for _, _, what in notes if what), "see the connector's log")
        return STEPS.warned(sentences(text for text, _, _ in notes), remedy)
    return STEPS.passed("no autoscaler is known that ignores one replica more or less")


def doubled(bus: BusFacts) -> list[str]:
    """Nodes for which two agents report, sorted."""
    return [node for node, boots in sorted(bus.boots.items()) if in_turns(boots)]


def in_turns(boots: Sequence[str]) -> bool:
    """Whether a start reported again after another one had: a restart replaces a start for good."""
    ended: set[str] = set()
    for before, boot in itertools.pairwise(boots):
        if boot != before:
            ended.add(before)
            if boot in ended:
                return True
    return False


def _rights(facts: Facts) -> CheckLine:
    rights = facts.rights
    if isinstance(rights, Unknown):
        return RIGHTS.skipped(rights.why)
    if rights.missing:
        lines = [line.partition(": add to the Role's rules: ") for line in manifest_lines(rights.missing)]
        return RIGHTS.failed(
            sentences(what for what, _, _ in lines),
            "add to the Role's rules: " + " ".join(rule for _, _, rule in lines),
        )
    bad = [one for one in rights.findings if one.status is Status.FAIL]
    if bad:
        return RIGHTS.failed(f"the agent: {sentences(one.detail for one in bad)}", bad[0].remedy)
    if rights.trouble:
        return RIGHTS.failed(rights.trouble, "is the API server reachable from here, with this account? (--kubeconfig)")
    return RIGHTS.passed(f"all {rights.asked} that are needed")


def _annotations(facts: Facts) -> CheckLine:
    cluster, bus = facts.cluster, facts.bus
    if isinstance(cluster, Unknown):
        return ANNOTATIONS.skipped(cluster.why)
    if isinstance(cluster.pods, Unknown):
        return ANNOTATIONS.skipped(cluster.pods.why)
    if not cluster.pods:
        return ANNOTATIONS.skipped("no pod has a power limit by annotation")
    if bad := [f"{one.pod}: {one.problem}" for one in cluster.pods if one.watts is None]:
        return ANNOTATIONS.failed(sentences(bad), "annotate the pod with a whole number of watts")
    if isinstance(bus, Unknown) or "telemetry.node" in bus.unread:
        return ANNOTATIONS.skipped(f"{len(cluster.pods)} pods are annotated, and no agent's report can be read")
    held: dict[str, list[v1.GpuTelemetry]] = {}
    for view in bus.view.nodes.values():
        for gpu in view.telemetry.gpus if view.telemetry is not None else ():
            held.setdefault(gpu.pod, []).append(gpu)
    above = [
        f"{one.pod}: {gpu.gpu} at {gpu.enforced_watts:g} W of {one.watts} W"
        for one in cluster.pods
        for gpu in held.get(one.pod, ())
        if gpu.enforced_watts is not None and one.watts is not None
        if gpu.enforced_watts > max(one.watts, gpu.min_watts) + SAME_WATTS
    ]
    if above:
        return ANNOTATIONS.failed(sentences(above), "see the agent's log and the pod's Events; annotations.enabled?")
    if unseen := [one.pod for one in cluster.pods if one.pod not in held]:
        remedy = "is the agent's Kubernetes mode on, and does it see pods? (`wattscale agent check` on that node)"
        return ANNOTATIONS.warned(f"no agent reports a GPU of {listed(unseen)}", remedy)
    return ANNOTATIONS.passed(f"in force on the GPUs of {len(cluster.pods)} pods")
