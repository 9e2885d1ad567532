"""Subjects: which one carries which message, and how names become subject tokens and back.

Pure. Grammar: ``<prefix>.v1.<kind>.<what>.<who>``. A stored message is also republished, with its stream
sequence in the headers, below ``<prefix>.stored.v1.``: watchers subscribe there and need no consumer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bus_schemas.errors import BadNameError

__all__ = [
    "BadNameError",
    "ParsedSubject",
    "Subjects",
    "decode_name",
    "encode_name",
    "power_consumer",
    "scaling_consumer",
]

VERSION = "v1"
MAX_NAME = 253
_PREFIX = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_NAME = re.compile(r"[A-Za-z0-9.:@/+=~-]+")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+")

WHATS = {
    "decision": ("scaling", "power"),
    "ack": ("scaling", "power"),
    "telemetry": ("node", "plan"),
    "control": ("budget", "deployment", "node"),
    "lease": ("planner", "led", "standby"),
    "claim": ("deployment", "target"),
}
"""Known kinds and the topics of each; a ``deadletter`` subject has a stream's name in that place."""


def encode_name(name: str) -> str:
    """A name as one subject token: ``.`` is written ``_``. Raises BadNameError for names that cannot be mapped back."""
    if not 0 < len(name) <= MAX_NAME:
        raise BadNameError(f"a name has 1 to {MAX_NAME} characters, not {len(name)}")
    if not _NAME.fullmatch(name):
        bad = next(c for c in name if not _NAME.fullmatch(c))
        why = "it stands for '.' in subjects" if bad == "_" else "a subject token cannot carry it"
        raise BadNameError(f"the name {name!r} holds {bad!r}: {why}; use letters, digits, '-' and '.'")
    return name.replace(".", "_")


def decode_name(token: str) -> str:
    """The name that a subject token stands for."""
    return token.replace("_", ".")


def _plain_token(token: str) -> str:
    if not 0 < len(token) <= MAX_NAME or not _TOKEN.fullmatch(token):
        raise BadNameError(f"{token!r} is not a stream or consumer name; use letters, digits, '-' and '_'")
    return token


@dataclass(frozen=True, slots=True)
class ParsedSubject:
    """The parts of a subject. ``who``: the decoded name; empty for the lease; the consumer for dead letters."""

    kind: str
    what: str
    who: str


@dataclass(frozen=True, slots=True)
class Subjects:
    """All subjects of one installation.

    Raises BadNameError for a prefix that is not dotted letters, digits and dashes.
    """

    prefix: str = "wattscale"

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise BadNameError(f"the prefix {self.prefix!r} must be letters, digits and '-', in parts joined by '.'")

    @property
    def root(self) -> str:
        """The common beginning of all subjects of this version, without the last dot."""
        return f"{self.prefix}.{VERSION}"

    def decision_scaling(self, deployment: str) -> str:
        """Subject of a deployment's scaling decisions."""
        return f"{self.root}.decision.scaling.{encode_name(deployment)}"

    def decision_power(self, node: str) -> str:
        """Subject of a node's power decisions."""
        return f"{self.root}.decision.power.{encode_name(node)}"

    def ack_scaling(self, deployment: str) -> str:
        """Subject of the acknowledgements of a deployment's one actuator."""
        return f"{self.root}.ack.scaling.{encode_name(deployment)}"

    def ack_power(self, node: str) -> str:
        """Subject of the acknowledgements of a node's agent."""
        return f"{self.root}.ack.power.{encode_name(node)}"

    def telemetry_node(self, node: str) -> str:
        """Subject of the telemetry of a node's agent."""
        return f"{self.root}.telemetry.node.{encode_name(node)}"

    def telemetry_plan(self, deployment: str) -> str:
        """Subject of the planner's records of a deployment, one per tick."""
        return f"{self.root}.telemetry.plan.{encode_name(deployment)}"

    def control_budget(self, site: str) -> str:
        """Subject of the changes of a site's power budget."""
        return f"{self.root}.control.budget.{encode_name(site)}"

    def control_deployment(self, deployment: str) -> str:
        """Subject of the commands for a deployment: pause, resume, pin, release."""
        return f"{self.root}.control.deployment.{encode_name(deployment)}"

    def control_node(self, node: str) -> str:
        """Subject of the commands for a node: remove, restore."""
        return f"{self.root}.control.node.{encode_name(node)}"

    def claim_deployment(self, deployment: str) -> str:
        """Subject of the claim of the connector that scales a deployment."""
        return f"{self.root}.claim.deployment.{encode_name(deployment)}"

    def claim_target(self, digest: str) -> str:
        """Subject of the claim on what a pool's count is written to, by a digest of its name."""
        return f"{self.root}.claim.target.{encode_name(digest)}"

    def led(self) -> str:
        """When a planner last led: lease messages that stay, for the lease itself is gone once it has run out."""
        return f"{self.root}.lease.led"

    def standby(self) -> str:
        """Signs of planners that wait for the lead: lease messages that expire and never stop anyone from leading."""
        return f"{self.root}.lease.standby"

    def lease(self) -> str:
        """Subject of the planners' leadership lease."""
        return f"{self.root}.lease.planner"

    def deadletter(self, stream: str, consumer: str) -> str:
        """Subject of the messages that ``consumer`` of ``stream`` cannot carry out. Both names as on the server."""
        return f"{self.root}.deadletter.{_plain_token(stream)}.{_plain_token(consumer)}"

    def stream_info(self, stream: str) -> str:
        """Subject under which the accounts of observers and operators import the description of a stream."""
        return f"{self.prefix}.info.{_plain_token(stream)}"

    def all_of(self, kind: str, what: str = "") -> str:
        """Wildcard over a kind, or over one `what` of it: ``all_of("decision", "power")``."""
        if kind not in WHATS and kind != "deadletter":
            raise BadNameError(f"no kind {kind!r}; there are {', '.join([*WHATS, 'deadletter'])}")
        return f"{self.root}.{kind}.{what}.>" if what else f"{self.root}.{kind}.>"

    def all_decisions(self) -> str:
        """Wildcard over all decisions."""
        return self.all_of("decision")

    def all_acks(self) -> str:
        """Wildcard over all acknowledgements."""
        return self.all_of("ack")

    def all_telemetry(self) -> str:
        """Wildcard over all telemetry."""
        return self.all_of("telemetry")

    def all_control(self) -> str:
        """Wildcard over all control messages."""
        return self.all_of("control")

    def all_deadletters(self) -> str:
        """Wildcard over all dead letters."""
        return self.all_of("deadletter")

    def all_leases(self) -> str:
        """Wildcard over all leases."""
        return self.all_of("lease")

    def all_claims(self) -> str:
        """Wildcard over all claims of connectors."""
        return self.all_of("claim")

    def everything(self) -> str:
        """Wildcard over all of this version."""
        return f"{self.root}.>"

    def stored(self, subject: str) -> str:
        """The subject on which the server republishes messages that it stored under ``subject`` (or a wildcard)."""
        return f"{self.prefix}.stored.{subject.removeprefix(self.prefix + '.')}"

    def parse(self, subject: str) -> ParsedSubject | None:
        """The parts of ``subject``, or None where it is not one of this installation."""
        head = self.root + "."
        if not subject.startswith(head):
            return None
        kind, _, rest = subject[len(head) :].partition(".")
        what, _, who = rest.partition(".")
        if not what or "." in who or not all(_is_token(token) for token in (what, who) if token):
            return None
        if kind == "deadletter":
            return ParsedSubject(kind, what, who) if who else None
        if what not in WHATS.get(kind, ()) or bool(who) == (kind == "lease"):
            return None
        return ParsedSubject(kind, what, decode_name(who))


def _is_token(token: str) -> bool:
    return bool(_NAME.fullmatch(token.replace("_", ".")))


def power_consumer(node: str) -> str:
    """Name of the durable consumer through which a node's agent receives its power decisions."""
    return f"power-{encode_name(node)}"


def scaling_consumer(deployment: str) -> str:
    """Name of the durable consumer through which a deployment's actuator receives its scaling decisions."""
    return f"scaling-{encode_name(deployment)}"
