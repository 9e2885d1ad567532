"""Policies by their names on the command line.

``ours`` | ``classic`` | ``load`` | ``sla+load``, each also with ``-nopower``; ``static:6p2d``; ``hpa``; ``keda``;
``knative``; ``clairvoyant:0.97`` (the good share that it plans for at the fewest GPU-hours; ``+joules``: at the fewest
joules; under a budget: the most good requests). A peer may end in ``+tdp``, ``+uniform``, ``+role``,
``+reactive``, ``+steer``, ``+even:0.8`` (a share of the nameplate) or ``+roles:500/350`` (watts of prefill and decode):
how it keeps within a budget. ``static:5p3d+mover:50`` starts so and then moves watts by 50 a GPU, and GPUs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from planner.domain.config import SizingMode
from planner.sim.bound.clairvoyant_bound import BoundAim
from planner.sim.evaluation.simulation import Policy
from planner.sim.policies.cap_policies import Caps, NoCaps, ReactiveCaps, RoleCaps, TdpProvisioning, UniformCaps
from planner.sim.policies.clairvoyant import Clairvoyant
from planner.sim.policies.ours import OurPlanner, OursSettings
from planner.sim.policies.peers import KnativeKpa, Peer, QueueKeda, Scaler, UtilisationHpa
from planner.sim.policies.watt_movers import FixedCaps, SteeredCaps, WattMover

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
    "steer": SteeredCaps,
}
EVEN = re.compile(r"even:(0?\.\d+|1(?:\.0*)?)")
ROLES = re.compile(r"roles:(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)")
MOVER = re.compile(r"mover(?::(\d+(?:\.\d+)?))?")
CAP_NAMES = (*CAPS, "even:0.8", "roles:500/350", "mover:50 (after static:)")
STATIC = re.compile(r"static:(\d+)p(\d+)d")
CLAIRVOYANT = re.compile(r"clairvoyant(?::(0?\.\d+))?(\+joules)?")
CLAIRVOYANT_SHARE = 0.97
NO_POWER = "-nopower"


class UnknownPolicyError(Exception):
    """No policy has that name. The message lists the known names."""


def make(name: str, settings: OursSettings | None = None) -> Policy:
    """A new policy by its name; ``settings`` apply to ours only. Raises UnknownPolicyError."""
    if name.removesuffix(NO_POWER) in OURS:
        sizing = OURS[name.removesuffix(NO_POWER)]
        return OurPlanner(replace(settings or OursSettings(), sizing=sizing, power=not name.endswith(NO_POWER)), name)
    if planned := CLAIRVOYANT.fullmatch(name):
        aim = BoundAim.JOULES if planned[2] else BoundAim.HOURS
        return Clairvoyant(name, float(planned[1] or CLAIRVOYANT_SHARE), aim)
    base, _, capping = name.partition("+")
    if found := STATIC.fullmatch(base):
        start = {"prefill": int(found[1]), "decode": int(found[2])}
        if moved := MOVER.fullmatch(capping):
            mover = WattMover(float(moved[1] or 50.0))
            return Peer(name, mover, mover, start)
        return Peer(name, None, _caps(capping), start)
    caps = _caps(capping)
    if base in SCALERS:
        return Peer(name, SCALERS[base](), caps, {})
    known = ", ".join([*OURS, "static:6p2d", *SCALERS, "clairvoyant:0.97"])
    raise UnknownPolicyError(f"no policy is called {name!r}; there are {known}")


def _caps(name: str) -> Caps:
    """A new rule by its name; none for an empty one. Raises UnknownPolicyError."""
    if not name:
        return NoCaps()
    if name in CAPS:
        return CAPS[name]()
    if even := EVEN.fullmatch(name):
        return FixedCaps(share=float(even[1]))
    if roles := ROLES.fullmatch(name):
        return FixedCaps(watts=(float(roles[1]), float(roles[2])))
    raise UnknownPolicyError(f"no way to cap is called {name!r}; there are {', '.join(CAP_NAMES)}")
