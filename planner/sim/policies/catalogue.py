"""Policies by their names on the command line.

``ours`` | ``classic`` | ``load`` | ``sla+load``, each also with ``-nopower``; ``static:6p2d``; ``hpa``; ``keda``;
``knative``; ``oracle`` or ``oracle:1.1`` (headroom). A peer may end in ``+tdp``, ``+uniform``, ``+role`` or
``+reactive``: how it keeps within a budget.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from planner.domain.config import SizingMode
from planner.sim.evaluation.simulation import Policy
from planner.sim.policies.cap_policies import Caps, NoCaps, ReactiveCaps, RoleCaps, TdpProvisioning, UniformCaps
from planner.sim.policies.oracle import Oracle
from planner.sim.policies.ours import OurPlanner, OursSettings
from planner.sim.policies.peers import KnativeKpa, Peer, QueueKeda, Scaler, UtilisationHpa

OURS = {
    "ours": SizingMode.SLA,
    "classic": SizingMode.CLASSIC,
    "load": SizingMode.LOAD,
    "sla+load": SizingMode.SLA_LOAD,
}
SCALERS: dict[str, Callable[[], Scaler]] = {"hpa": UtilisationHpa, "keda": QueueKeda, "knative": KnativeKpa}
CAPS: dict[str, Callable[[], Caps]] = {
    "tdp": TdpProvisioning,
    "uniform": UniformCaps,
    "role": RoleCaps,
    "reactive": ReactiveCaps,
}
STATIC = re.compile(r"static:(\d+)p(\d+)d")
ORACLE = re.compile(r"oracle(?::(\d+(?:\.\d+)?))?")
NO_POWER = "-nopower"


class UnknownPolicyError(Exception):
    """No policy has that name. The message lists the known names."""


def make(name: str, settings: OursSettings | None = None) -> Policy:
    """A new policy by its name; ``settings`` apply to ours only. Raises UnknownPolicyError."""
    if name.removesuffix(NO_POWER) in OURS:
        sizing = OURS[name.removesuffix(NO_POWER)]
        return OurPlanner(replace(settings or OursSettings(), sizing=sizing, power=not name.endswith(NO_POWER)), name)
    base, _, capping = name.partition("+")
    if capping and capping not in CAPS:
        raise UnknownPolicyError(f"no way to cap is called {capping!r}; there are {', '.join(CAPS)}")
    caps = CAPS[capping]() if capping else NoCaps()
    if found := STATIC.fullmatch(base):
        return Peer(name, None, caps, {"prefill": int(found[1]), "decode": int(found[2])})
    if found := ORACLE.fullmatch(base):
        return Peer(name, Oracle(float(found[1] or 1.0)), caps, {})
    if base in SCALERS:
        return Peer(name, SCALERS[base](), caps, {})
    known = ", ".join([*OURS, "static:6p2d", *SCALERS, "oracle"])
    raise UnknownPolicyError(f"no policy is called {name!r}; there are {known}")
