"""Power limits by pod annotation, the way Dynamo's power agent reads them. Pure.

Owns what an annotation means for a GPU: positive whole watts; the lowest wins where pods share a GPU; an unreadable
annotation gets the safe default; a GPU that never had an annotated pod is left alone. A GPU that was capped keeps its
cap while it is idle, and gets back the limit that was found on it when a pod without an annotation is placed on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agent.core.ownership import Pod

ANNOTATION = "dynamo.nvidia.com/gpu-power-limit"
LARGEST_WATTS = 1_000_000


class NoteKind(StrEnum):
    """What is wrong with a pod's annotation; also the reason of the Kubernetes event."""

    MALFORMED = "MalformedGpuPowerLimit"
    SHARED = "SharedGpuPowerLimit"
    CLAMPED = "ClampedGpuPowerLimit"


@dataclass(frozen=True, slots=True)
class Note:
    """One remark about one pod, for a Kubernetes event."""

    kind: NoteKind
    pod: Pod
    gpu: str
    text: str


@dataclass(frozen=True, slots=True)
class GpuLimits:
    """The range of a GPU's limit, and the limit requested now. Milliwatts."""

    min_mw: int
    max_mw: int
    requested_mw: int


@dataclass(frozen=True, slots=True)
class AnnotationPlan:
    """Targets by GPU; ``found_mw`` of every managed GPU; which of them are being released."""

    targets_mw: Mapping[str, int]
    found_mw: Mapping[str, int]
    released: frozenset[str] = frozenset()
    notes: tuple[Note, ...] = ()


def watts_of(pod: Pod) -> int | None:
    """The annotation's watts; None without one. Raises ValueError unless it is a positive whole number."""
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
    """Targets for the GPUs that are or become managed; an idle managed GPU has none and keeps its cap.

    ``found_mw``: the limits that were found on the GPUs that are managed already.
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
    """The limit that the pods on one GPU request (None: none of them does), and remarks about it."""
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
    text = f"{wanted_mw / 1000:g} W is outside the range of GPU {gpu}: {target_mw / 1000:g} W holds"
    return Note(NoteKind.CLAMPED, pods[0], gpu, text)
