"""The steps of the evaluation. Each finds out what is there already: a run goes on where another one stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.kubernetes.in_cluster import (
    BUS,
    CUT,
    DECISIONS_WITHIN_S,
    GRAPH,
    MODEL,
    NAMESPACE,
    PIN,
    PINNED,
    PORT,
    RELEASE,
    RELEASES,
    VERIFY,
    VERIFY_WITHIN_S,
    Manifest,
    chat_graph,
    namespace,
    token_secret,
    verifier,
    waits,
)
from deploy.kubernetes.local_images import LocalImages
from deploy.kubernetes.own_cluster import OwnCluster
from deploy.kubernetes.pinned import PROMETHEUS_CHART, PROMETHEUS_CHART_VERSION
from deploy.kubernetes.watched_command import Programs, TryError, show

VALUES = Path(__file__).parent / "values"
CHART = "deploy/helm/wattscale"
MONITORING, PROMETHEUS = "monitoring", "prometheus"
HELM_S, WORKLOAD_S = 900, 600
SPARE_S = 60.0
"""What a program gets beyond its own time-out, to end by itself with its own words."""
PAUSE_S = 3.0
REQUESTS_S = 30


@dataclass(frozen=True, slots=True)
class Graph:
    """What serves requests: ours, or manifests and values of the user's own."""

    manifests: tuple[Manifest, ...] | None = None
    values: Path = VALUES / "chat.yaml"
    token: str = field(default="", repr=False)
    """Empty where none of it needs one."""

    @property
    def is_ours(self) -> bool:
        """Whether it is the built-in one, which is sent requests."""
        return self.manifests is None


@dataclass(slots=True)
class Evaluation:
    """``programs`` reach the cluster and no other."""

    root: Path
    cluster: OwnCluster
    images: LocalImages
    programs: Programs
    graph: Graph
    pause_s: float = PAUSE_S
    _tags: dict[str, str] = field(default_factory=dict)

    def bring_up(self) -> None:
        """Raises TryError at the step that fails."""
        self._do(
            [
                (f"cluster {self.cluster.name} with {self.cluster.program.name}", self.cluster.ensure),
                ("images of this checkout", self._put_images),
                ("Prometheus and Grafana", self._install_prometheus),
                ("the serving graph", self._apply_graph),
                ("bus, planner, agents and connectors", self._install_chart),
            ]
        )

    def verify(self) -> None:
        """Raises TryError where something that was brought up does not work."""
        steps: list[tuple[str, Callable[[], None]]] = [("every agent's own checks", self._check_agents)]
        if self.graph.is_ours:
            steps = [
                ("requests", self._send_requests),
                ("a replica more, and a smaller budget", self._give_commands),
                *steps,
                ("the connector's rights", self._check_connector),
                ("the whole installation", self._run_verifier),
                ("the planner decides again", self._release_commands),
            ]
        else:
            show("A graph of your own gets no requests and no commands: lines about them may be skipped.")
            steps.append(("the whole installation", self._run_verifier))
        self._do(steps)

    def _do(self, steps: Sequence[tuple[str, Callable[[], None]]]) -> None:
        for number, (title, act) in enumerate(steps, start=1):
            show(f"[{number}/{len(steps)}] {title}")
            act()

    @property
    def _image(self) -> str:
        return f"wattscale/planner:{self._tags['planner']}"

    def _put_images(self) -> None:
        self._tags = self.images.put_into(self.cluster.program)

    def _install_prometheus(self) -> None:
        chart = [PROMETHEUS_CHART, "--version", PROMETHEUS_CHART_VERSION, "--values", str(VALUES / "prometheus.yaml")]
        self._helm(PROMETHEUS, MONITORING, chart)
        # The operator makes it, after Helm has ended.
        words = ["wait", "--for=condition=Available", f"prometheus/{PROMETHEUS}-kube-prometheus-prometheus"]
        self._kubectl(MONITORING, [*words, f"--timeout={WORKLOAD_S}s"], "Prometheus", WORKLOAD_S + SPARE_S)

    def _apply_graph(self) -> None:
        self._apply([namespace()])
        if self.graph.token:
            self._apply([token_secret(self.graph.token)])
        manifests = chat_graph(self._image) if self.graph.manifests is None else self.graph.manifests
        self._apply(manifests)
        for words in waits(manifests, WORKLOAD_S):
            self._kubectl(NAMESPACE, words, f"the graph: {words[2]}", WORKLOAD_S + SPARE_S)

    def _install_chart(self) -> None:
        values = ["--values", str(VALUES / "evaluation.yaml"), "--values", str(self.graph.values)]
        tags = [word for image, tag in self._tags.items() for word in ("--set", f"images.{image}.tag={tag}")]
        self._helm(RELEASE, NAMESPACE, [str(self.root / CHART), *values, *tags])

    def _helm(self, release: str, place: str, rest: Sequence[str]) -> None:
        words = ["helm", "upgrade", "--install", release, *rest, "--namespace", place, "--create-namespace"]
        self.programs.run([*words, "--wait", "--timeout", f"{HELM_S}s"], release, HELM_S + SPARE_S)

    def _kubectl(self, place: str, words: Sequence[str], purpose: str, within_s: float) -> None:
        self.programs.run(["kubectl", "--namespace", place, *words], purpose, within_s)

    def _apply(self, manifests: Sequence[Manifest]) -> None:
        """On standard input: a Secret must not become an argument."""
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        words = ["kubectl", "--namespace", NAMESPACE, "apply", "--filename", "-"]
        names = ", ".join(f"{one.get('kind')} {one.get('metadata', {}).get('name')}" for one in manifests)
        self.programs.answer(words, names, given=listed)

    def _send_requests(self) -> None:
        load = ["wattscale", "load", "--url", f"http://{GRAPH}:{PORT}", "--model", MODEL, "--rate", "2"]
        words = ["exec", f"deployment/{GRAPH}", "--", *load, "--duration", str(REQUESTS_S), "--min-good", "0.5"]
        self._kubectl(NAMESPACE, words, "requests", REQUESTS_S + SPARE_S)

    def _give_commands(self) -> None:
        """Each is seen through: pods that serve, and caps in force on every GPU."""
        self._order(PIN)
        ready = f"--for=jsonpath={{.status.readyReplicas}}={PINNED}"
        words = ["wait", ready, f"deployment/{GRAPH}", f"--timeout={DECISIONS_WITHIN_S}s"]
        self._kubectl(NAMESPACE, words, "the replica", DECISIONS_WITHIN_S + SPARE_S)
        self._order(CUT)

    def _release_commands(self) -> None:
        for words in RELEASES:
            self._order(words)

    def _order(self, command: Sequence[str]) -> None:
        words = ["exec", f"deployment/{RELEASE}-planner", "--", "wattscale", *command, "--nats-url", BUS]
        self._kubectl(NAMESPACE, words, " ".join(command[:2]), WORKLOAD_S)

    def _check_agents(self) -> None:
        prove = str(self.root / "deploy/helm/prove-agent")
        self.programs.run([prove, NAMESPACE, RELEASE], "the agents", WORKLOAD_S)

    def _check_connector(self) -> None:
        """In its own pod: its rights are those of its account."""
        settings = ["--connector-settings", "/etc/wattscale/connector.yaml"]
        verify = ["wattscale", "verify", *settings, "--nats-url", BUS, "--wait", "60"]
        words = ["exec", f"deployment/{RELEASE}-connector-{GRAPH}", "--", *verify]
        self._kubectl(NAMESPACE, words, "the connector", WORKLOAD_S)

    def _run_verifier(self) -> None:
        delete = ["kubectl", "--namespace", NAMESPACE, "delete", "job", VERIFY, "--ignore-not-found"]
        self.programs.answer(delete, "the verifier of an earlier run")
        self._apply(verifier(self._image))
        succeeded = self._verifier_ended()
        self._kubectl(NAMESPACE, ["logs", f"job/{VERIFY}"], "the verifier", SPARE_S)
        if not succeeded:
            raise TryError("`wattscale verify` failed: see the lines marked fail above, each with its remedy")

    def _verifier_ended(self) -> bool:
        began = time.monotonic()
        form = "jsonpath={.status.conditions[?(@.status=='True')].type}"
        words = ["kubectl", "--namespace", NAMESPACE, "get", "job", VERIFY, "--output", form]
        while (spent_s := time.monotonic() - began) < VERIFY_WITHIN_S + SPARE_S:
            ends = set(self.programs.answer(words, "the verifier").split())
            if ends & {"Complete", "Failed"}:
                return "Complete" in ends
            show(f"      verifying: {spent_s:.0f} s of at most {VERIFY_WITHIN_S} s")
            time.sleep(self.pause_s)
        raise TryError(f"the verifier did not end within {VERIFY_WITHIN_S} s: see kubectl describe job/{VERIFY}")
