"""Power limits by pod annotation, the way Dynamo's power agent reads them. Pure.

Owns what an annotation means for a GPU: positive whole watts; the lowest wins where pods share a GPU; what can not be
read is the safe default; a GPU that never had an annotated pod is left alone. A GPU that we capped keeps its cap while
nobody uses it, and gets back the limit that was found on it when a pod without an annotation moves in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.core.ownership import Pod

ANNOTATION = "dynamo.nvidia.com/gpu-power-limit"
LARGEST_WATTS = 1_000_000


class NoteKind(StrEnum):
    """Why somebody should look at a pod; also the reason of the Kubernetes event."""

    MALFORMED = "MalformedGpuPowerLimit"
    SHARED = "SharedGpuPowerLimit"
    CLAMPED = "ClampedGpuPowerLimit"


@dataclass(frozen=True, slots=True)
class Note:
    """One thing to say about one pod."""

    kind: NoteKind
    pod: Pod
    gpu: str
    text: str


@dataclass(frozen=True, slots=True)
class GpuLimits:
    """What a GPU takes, and what is asked of it now. Milliwatts."""

    min_mw: int
    max_mw: int
    requested_mw: int


@dataclass(frozen=True, slots=True)
class AnnotationPlan:
    """Targets by GPU; ``found_mw`` of every GPU that is ours; which of them are being given back."""

    targets_mw: Mapping[str, int]
    found_mw: Mapping[str, int]
    released: frozenset[str] = frozenset()
    notes: tuple[Note, ...] = ()


def watts_of(pod: Pod) -> int | None:
    """The annotation's watts; None without one. Raises ValueError for one that is no positive whole number."""
    text = pod.annotations.get(ANNOTATION)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= LARGEST_WATTS):
        raise ValueError(f"annotation {ANNOTATION}={text!r}: not a positive whole number of watts")
    return int(text)


def plan(
    gpus: Mapping[str, GpuLimits],
    pods: Mapping[str, tuple[Pod, ...]],
    found_mw: Mapping[str, int],
    safe_default_mw: int,
) -> AnnotationPlan:
    """Targets for the GPUs that are or become ours; one that is ours and idle has none, its cap stays.

    ``found_mw``: limits as they were found, of the GPUs that are ours already.
    """
    targets: dict[str, int] = {}
    ours = dict(found_mw)
    released: set[str] = set()
    notes: list[Note] = []
    for gpu, limits in gpus.items():
        here = pods.get(gpu, ())
        wanted, found_notes = bound_of(gpu, here, safe_default_mw)
        notes.extend(found_notes)
        if wanted is not None:
            ours.setdefault(gpu, limits.requested_mw)
            targets[gpu] = min(max(wanted, limits.min_mw), limits.max_mw)
            if targets[gpu] != wanted:
                notes.append(_clamped(gpu, here, wanted, targets[gpu]))
        elif gpu in ours and here:
            targets[gpu] = ours[gpu]
            released.add(gpu)
    return AnnotationPlan(targets, ours, frozenset(released), tuple(notes))


def bound_of(gpu: str, pods: tuple[Pod, ...], safe_default_mw: int) -> tuple[int | None, list[Note]]:
    """The limit that the pods on one GPU ask for (None: none of them does), and what is to be said about it."""
    asked: dict[str, int] = {}
    notes: list[Note] = []
    for pod in pods:
        try:
            watts = watts_of(pod)
        except ValueError as error:
            asked[pod.uid] = safe_default_mw
            notes.append(
                Note(NoteKind.MALFORMED, pod, gpu, f"{error}; the safe default of {safe_default_mw / 1000:g} W holds")
            )
            continue
        if watts is not None:
            asked[pod.uid] = watts * 1000
    if not asked:
        return None, notes
    lowest = min(asked.values())
    if len(pods) > 1:
        names = ", ".join(f"{pod.ref.namespace}/{pod.ref.name}" for pod in pods)
        text = f"GPU {gpu} is shared by {names}: the lowest limit, {lowest / 1000:g} W, holds for all of them"
        notes.extend(Note(NoteKind.SHARED, pod, gpu, text) for pod in pods)
    return lowest, notes


def _clamped(gpu: str, pods: tuple[Pod, ...], wanted_mw: int, target_mw: int) -> Note:
    text = f"{wanted_mw / 1000:g} W is outside what GPU {gpu} takes: {target_mw / 1000:g} W holds"
    return Note(NoteKind.CLAMPED, pods[0], gpu, text)
