"""Makes the streams, says what it would change, and never shrinks or deletes what exists."""

from __future__ import annotations

from dataclasses import dataclass

from nats.js import api
from nats.js.errors import NotFoundError

from bus_schemas.jetstream.connect import Bus
from bus_schemas.streams import DECISIONS, KV_BUCKET, StreamSpec, stream_specs


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between what is wanted and what is there. ``refused``: would shrink; only an operator may."""

    stream: str
    what: str
    refused: bool = False

    def __str__(self) -> str:
        mark = "!" if self.refused else ("+" if self.what == "create" else "~")
        return f"{mark} {self.stream}: {self.what}" + (" (refused: it would shrink; do it by hand)" * self.refused)


def wanted_configs(bus: Bus) -> tuple[api.StreamConfig, ...]:
    """The streams as the server takes them, the read-only KV bucket of current decisions last."""
    configs = tuple(_config(spec, bus.settings.replicas) for spec in stream_specs(bus.subjects))
    return (*configs, _bucket(bus))


def _config(spec: StreamSpec, replicas: int) -> api.StreamConfig:
    return api.StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        storage=api.StorageType.FILE if spec.file else api.StorageType.MEMORY,
        max_age=spec.max_age_s,
        max_msgs_per_subject=spec.per_subject or -1,
        max_consumers=spec.max_consumers,
        discard=api.DiscardPolicy.OLD,
        deny_delete=spec.sealed_history,
        deny_purge=spec.sealed_history,
        duplicate_window=spec.dedupe_s,
        allow_direct=True,
        allow_atomic=spec.fenced,
        allow_msg_ttl=spec.fenced,
        num_replicas=replicas,
    )


def _bucket(bus: Bus) -> api.StreamConfig:
    source = api.StreamSource(
        name=DECISIONS,
        subject_transforms=[
            api.SubjectTransform(src=bus.subjects.all_of("decision"), dest=f"$KV.{KV_BUCKET}.decision.>"),
        ],
    )
    return api.StreamConfig(
        name=f"KV_{KV_BUCKET}",
        sources=[source],
        storage=api.StorageType.FILE,
        max_msgs_per_subject=64,
        max_consumers=1000,
        deny_delete=True,
        allow_direct=True,
        allow_rollup_hdrs=False,
        num_replicas=bus.settings.replicas,
    )


async def plan(bus: Bus) -> list[Change]:
    """What ``apply`` would do. Empty: nothing."""
    changes: list[Change] = []
    for config in wanted_configs(bus):
        there = await _there(bus, config.name or "")
        if there is None:
            changes.append(Change(config.name or "", "create"))
        else:
            changes += _differences(config, there)
    return changes


async def apply(bus: Bus) -> list[Change]:
    """Create what is missing and grow what is smaller; returns what was done and what was refused."""
    done = []
    for config in wanted_configs(bus):
        there = await _there(bus, config.name or "")
        if there is None:
            await bus.js.add_stream(config)
            done.append(Change(config.name or "", "create"))
            continue
        changes = _differences(config, there)
        if changes and not any(change.refused for change in changes):
            await bus.js.update_stream(config)
        done += changes
    return done


async def _there(bus: Bus, name: str) -> api.StreamConfig | None:
    try:
        return (await bus.js.stream_info(name)).config
    except NotFoundError:
        return None


_GROWING = ("max_age", "max_msgs_per_subject", "max_consumers", "duplicate_window", "num_replicas")
_EXACT = ("deny_delete", "deny_purge", "allow_direct", "allow_atomic", "allow_msg_ttl", "storage", "discard")


def _differences(want: api.StreamConfig, there: api.StreamConfig) -> list[Change]:
    changes = []
    name = want.name or ""
    if want.subjects is not None and set(want.subjects) != set(there.subjects or []):
        missing = set(there.subjects or []) - set(want.subjects)
        changes.append(Change(name, f"subjects {there.subjects} -> {want.subjects}", refused=bool(missing)))
    for field in _GROWING:
        old, new = getattr(there, field), getattr(want, field)
        if new is not None and old is not None and old != new:
            unlimited = field == "max_msgs_per_subject" and old == -1
            changes.append(Change(name, f"{field} {old} -> {new}", refused=unlimited or 0 < new < old))
    for field in _EXACT:
        old, new = getattr(there, field), getattr(want, field)
        if new is not None and bool(old) != bool(new):
            changes.append(Change(name, f"{field} {old} -> {new}", refused=field == "storage"))
    return changes
