"""Creates and updates the streams, or lists what it would change. Never shrinks or deletes a stream."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from nats.js.api import (
    DiscardPolicy,
    RePublish,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamSource,
    SubjectTransform,
)
from nats.js.errors import APIError

from bus_schemas.errors import NotPermittedError, ProvisionRefusedError
from bus_schemas.jetstream.api import error_of, package_errors, stream_info
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.periodic import run_periodically
from bus_schemas.streams import PLANS, TELEMETRY, StreamSpec, stream_specs

NOT_FOUND = 10059
OLD_PERMISSIONS = "the server's permissions are of an earlier version; exchange its configuration"
KEEP_EVERY_S = 10.0
"""How long a deleted stream may be missing: shorter than a power lease, so no lease runs out meanwhile."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamChange:
    """One difference between a wanted and an existing stream. ``refused``: why only an operator may change it."""

    stream: str
    what: str
    refused: str = ""

    def __str__(self) -> str:
        mark = "!" if self.refused else ("+" if self.what == "create" else "~")
        return f"{mark} {self.stream}: {self.what}" + (f" (refused: {self.refused})" if self.refused else "")


def wanted(bus: Bus, replicas: int | None = None) -> tuple[StreamSpec, ...]:
    """The streams for this connection's prefix; ``replicas`` defaults to the settings' value."""
    return stream_specs(bus.subjects, replicas=replicas or bus.settings.replicas)


async def plan(bus: Bus, replicas: int | None = None) -> list[StreamChange]:
    """Every difference between the server and `wanted`, including those that `apply` would refuse.

    Raises BusAwayError, NotPermittedError, ProvisionRefusedError.
    """
    both, unseen = await _both(bus, replicas)
    return [*unseen, *(change for spec, there in both for change in differences(spec, there))]


async def apply(bus: Bus, replicas: int | None = None) -> list[StreamChange]:
    """Create missing streams and grow smaller ones. Returns what was changed and what was refused.

    Raises BusAwayError, NotPermittedError, ProvisionRefusedError.
    """
    both, done = await _both(bus, replicas)
    there = {spec.name for spec, existing in both if existing is not None}
    for spec, existing in both:
        changes = differences(spec, existing)
        if existing is None:
            with _admin_errors(bus, f"STREAM.CREATE.{spec.name}"):
                await bus.js.add_stream(_made(bus, spec, there))
        elif any(not change.refused for change in changes):
            # Fields whose change is refused keep the server's value; the others are updated.
            kept = {change.what.split(" ", 1)[0] for change in changes if change.refused}
            fresh = {key: value for key, value in _given(spec).items() if key not in kept}
            with _admin_errors(bus, f"STREAM.UPDATE.{spec.name}"):
                await bus.js.update_stream(existing.evolve(**fresh))
        done += changes
    return done


async def keep(bus: Bus, every_s: float = KEEP_EVERY_S) -> None:
    """Run `apply` at once, after each reconnect and every ``every_s`` seconds, until cancelled.

    A single server loses a stream in memory when it restarts, and telemetry is not stored until the stream is back.
    """

    async def work() -> None:
        for change in await apply(bus):
            _log.info("streams: %s", change)

    await run_periodically(bus, "the streams", work, every_s)


async def _both(
    bus: Bus, replicas: int | None
) -> tuple[list[tuple[StreamSpec, StreamConfig | None]], list[StreamChange]]:
    """Each wanted stream with what the server has of it, and what its permissions do not let us see.

    Where the permissions are of the version without a stream of plan records, these stay with the readings.
    """
    specs, unseen = wanted(bus, replicas), list[StreamChange]()
    try:
        await _existing(bus, PLANS)
    except NotPermittedError:
        unseen.append(StreamChange(PLANS, "create", OLD_PERMISSIONS))
        specs = tuple(replace(one, subjects=one.formerly or one.subjects) for one in specs if one.name != PLANS)
    return [(spec, await _existing(bus, spec.name)) for spec in specs], unseen


def _made(bus: Bus, spec: StreamSpec, there: Collection[str]) -> StreamConfig:
    """The configuration of a new stream. Plan records that are stored with the readings of nodes, as earlier versions
    did, are taken over from there by the server.
    """
    config = stream_config(spec)
    if spec.name == PLANS and TELEMETRY in there:
        config.sources = [StreamSource(name=TELEMETRY, filter_subject=bus.subjects.all_of("telemetry", "plan"))]
    return config


def stream_config(spec: StreamSpec) -> StreamConfig:
    """The spec as the client library's configuration. Ages and windows in seconds."""
    return StreamConfig(**_given(spec))


def _given(spec: StreamSpec) -> dict[str, Any]:
    """The fields of a stream's configuration that the spec decides; the server keeps its own value of the others."""
    given: dict[str, Any] = {
        "name": spec.name,
        "description": spec.description,
        "retention": RetentionPolicy.LIMITS,
        "discard": DiscardPolicy.OLD,
        "storage": StorageType(spec.storage),
        "max_age": spec.max_age_s,
        "max_msgs": -1,
        "max_msgs_per_subject": spec.max_msgs_per_subject,
        "max_bytes": spec.max_bytes,
        "max_consumers": spec.max_consumers,
        "duplicate_window": spec.duplicate_window_s,
        "num_replicas": spec.replicas,
        "allow_direct": True,
        "deny_delete": spec.deny_delete,
        "deny_purge": spec.deny_delete,
        "allow_msg_ttl": spec.allow_msg_ttl,
        "allow_atomic": spec.allow_atomic,
    }
    if spec.max_msg_bytes > 0:
        given["max_msg_size"] = spec.max_msg_bytes
    if spec.subjects:
        given["subjects"] = list(spec.subjects)
    if spec.republish:
        given["republish"] = RePublish(src=spec.republish[0], dest=spec.republish[1])
    if spec.sources:
        given["sources"] = [
            StreamSource(name=stream, subject_transforms=[SubjectTransform(src=src, dest=dest)])
            for stream, src, dest in spec.sources
        ]
    return given


async def _existing(bus: Bus, name: str) -> StreamConfig | None:
    """A stream's configuration on the server, or None where the stream does not exist."""
    with _admin_errors(bus, f"STREAM.INFO.{name}"):
        value = await stream_info(bus, name)
    refusal = error_of(value)
    if refusal is None:
        found: StreamConfig = StreamConfig.from_response(value["config"])
        return found
    if refusal.code != NOT_FOUND:
        raise ProvisionRefusedError(f"STREAM.INFO.{name}: {refusal.text}")
    return None


@contextmanager
def _admin_errors(bus: Bus, call: str) -> Iterator[None]:
    """Raises ProvisionRefusedError for a refusal of the JetStream API, BusAwayError without an answer."""
    try:
        with package_errors(bus, f"$JS.API.{call}"):
            yield
    except APIError as error:
        raise ProvisionRefusedError(f"{call}: {error.description}") from error


_GROWING = ("max_age", "max_msgs_per_subject", "max_bytes", "max_consumers", "duplicate_window", "num_replicas")
_SETTLED = {"storage", "retention", "deny_delete", "deny_purge"}
_UNLIMITED = {"max_age": 0, "max_msgs_per_subject": -1, "max_bytes": -1}
_SHRINK = "it would shrink what is there"


def differences(spec: StreamSpec, existing: StreamConfig | None) -> list[StreamChange]:
    """What separates a stream on the server from its spec; ``existing`` is None where the stream does not exist."""
    if existing is None:
        return [StreamChange(spec.name, "create")]
    want, there = stream_config(spec).as_dict(), existing.as_dict()
    return list(_compare(spec, {key: want[key] for key in _given(spec)}, there))


def _compare(spec: StreamSpec, want: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[StreamChange]:
    for key, new in want.items():
        old = there.get(key)
        if old == new or (old is None and new in (False, "", [], -1)):
            continue
        yield StreamChange(spec.name, f"{key} {_text(key, old)} -> {_text(key, new)}", _objection(spec, key, old, new))


def _objection(spec: StreamSpec, key: str, old: Any, new: Any) -> str:
    if key in _GROWING and old is not None:
        unlimited = _UNLIMITED.get(key)
        if old == unlimited or (new != unlimited and new < old):
            return _SHRINK
    if key == "max_msg_size" and 0 < new < (old or 0):
        return _SHRINK
    if key == "subjects" and set(old or ()) - {*new, *spec.formerly}:
        return "subjects would no longer be stored"
    if key == "sources" and old:
        return "sources of an existing stream stay as they are"
    if key in _SETTLED and (key in {"storage", "retention"} or old):
        return "the server cannot change it on an existing stream"
    return ""


def _text(key: str, value: Any) -> str:
    if key in {"max_age", "duplicate_window"} and isinstance(value, int):
        return f"{value / 1e9:.12g} s"
    return json.dumps(value)
