"""Subjects: ``<prefix>.v1.<kind>.<what>.<who>``. Kind comes before who, so that wildcards read naturally. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

VERSION = "v1"
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
_PREFIX = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")


class BadName(ValueError):  # noqa: N818 - reads as what it is where it is raised
    """A name that a subject can not carry; the message says which and why."""


def encode_name(name: str) -> str:
    """A name as one subject token: ``.`` becomes ``_`` (a Kubernetes name can not hold ``_``, so it maps back)."""
    if not name:
        raise BadName("a name must not be empty")
    if "_" in name:
        raise BadName(f"name {name!r} holds '_', which stands for '.' in a subject; use '-'")
    token = name.replace(".", "_")
    if not _TOKEN.fullmatch(token):
        bad = next(char for char in token if not _TOKEN.fullmatch(char))
        raise BadName(f"name {name!r} holds {bad!r}; a subject takes letters, digits, '-' and '.' only")
    return token


def decode_name(token: str) -> str:
    """The name behind a subject token."""
    return token.replace("_", ".")


@dataclass(frozen=True, slots=True)
class ParsedSubject:
    """A subject taken apart: ``kind`` (decision, ack, …), ``what`` (scaling, power, …), ``who`` (a name)."""

    kind: str
    what: str
    who: str


@dataclass(frozen=True, slots=True)
class Subjects:
    """All subjects below one prefix. Raises BadName for a prefix or name that a subject can not carry."""

    prefix: str = "wattscale"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise BadName(f"prefix {self.prefix!r}: tokens of letters, digits and '-', joined by '.'")

    @property
    def root(self) -> str:
        return f"{self.prefix}.{VERSION}"

    def _of(self, kind: str, what: str, who: str) -> str:
        return f"{self.root}.{kind}.{what}.{encode_name(who)}"

    def decision_scaling(self, deployment: str) -> str:
        return self._of("decision", "scaling", deployment)

    def decision_power(self, node: str) -> str:
        return self._of("decision", "power", node)

    def ack_scaling(self, deployment: str) -> str:
        return self._of("ack", "scaling", deployment)

    def ack_power(self, node: str) -> str:
        return self._of("ack", "power", node)

    def telemetry_node(self, node: str) -> str:
        return self._of("telemetry", "node", node)

    def telemetry_plan(self, deployment: str) -> str:
        return self._of("telemetry", "plan", deployment)

    def control_budget(self, site: str) -> str:
        return self._of("control", "budget", site)

    def control_deployment(self, deployment: str) -> str:
        return self._of("control", "deployment", deployment)

    def control_node(self, node: str) -> str:
        return self._of("control", "node", node)

    def deadletter(self, stream: str, consumer: str) -> str:
        return f"{self.root}.deadletter.{stream}.{consumer}"

    def lease(self) -> str:
        return f"{self.root}.lease.planner"

    def all_of(self, kind: str, what: str = "") -> str:
        """Wildcard for a kind (``decision``) or a kind and what (``decision``, ``power``)."""
        return f"{self.root}.{kind}.{what}.>" if what else f"{self.root}.{kind}.>"

    def everything(self) -> str:
        return f"{self.root}.>"

    def parse(self, subject: str) -> ParsedSubject | None:
        """Take a subject apart; None where it is not one of ours."""
        if not subject.startswith(self.root + "."):
            return None
        tokens = subject[len(self.root) + 1 :].split(".")
        if tokens == ["lease", "planner"]:
            return ParsedSubject("lease", "planner", "")
        if len(tokens) != 3:
            return None
        kind, what, who = tokens
        return ParsedSubject(kind, what, who if kind == "deadletter" else decode_name(who))


def power_consumer(node: str) -> str:
    """Name of the durable consumer through which a node's agent takes its power decisions."""
    return f"power-{encode_name(node)}"


def scaling_consumer(deployment: str) -> str:
    """Name of the durable consumer through which a deployment's actuator takes its scaling decisions."""
    return f"scaling-{encode_name(deployment)}"
