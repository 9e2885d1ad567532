"""The keys of Dynamo's VirtualConnector in etcd, of both generations, and what they hold. Pure.

1.x keeps them below ``v1/{namespace}/planner/``, 0.x below ``/{namespace}/planner/``; values are ASCII decimals.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

PREFILL, DECODE = "num_prefill_workers", "num_decode_workers"
DECISION, SCALED = "decision_id", "scaled_decision_id"
_NUMBER = re.compile(r"([+-]?)0*([0-9]{1,19})")
"""Without leading zeros, no longer than an i64: Python refuses to read thousands of digits."""
_MOST = 2**63 - 1


def prefixes(namespace: str) -> tuple[str, str]:
    """Where the two generations keep a namespace's keys."""
    return f"v1/{namespace}/planner/", f"/{namespace}/planner/"


def own_prefix(namespace: str) -> str:
    """Where the connector keeps its own keys; no client reads there."""
    return f"wattscale/virtual/{namespace}/"


def number(text: str | None) -> int | None:
    """A value as Dynamo reads it (Rust's ``i64::from_str``); None where it is absent or not a number."""
    found = None if text is None else _NUMBER.fullmatch(text)
    value = None if found is None else int(found[1] + found[2])
    return None if value is None or abs(value) > _MOST else value


@dataclass(frozen=True, slots=True)
class KeyGeneration:
    """What one generation's keys hold; None: absent or not a number."""

    decision_id: int | None
    scaled_id: int | None
    counts: tuple[int | None, int | None]
    """Of prefill and decode."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Every id that a client can still read."""
        return tuple(one for one in (self.decision_id, self.scaled_id) if one is not None)


def generation(prefix: str, values: Mapping[str, str]) -> KeyGeneration:
    """What the keys below ``prefix`` hold."""
    read = {name: number(values.get(prefix + name)) for name in (PREFILL, DECODE, DECISION, SCALED)}
    return KeyGeneration(read[DECISION], read[SCALED], (read[PREFILL], read[DECODE]))
