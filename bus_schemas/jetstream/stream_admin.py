"""Makes the streams, says what it would change, and never shrinks or deletes what exists."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bus_schemas.errors import ProvisionRefusedError
from bus_schemas.jetstream.api import answer, ask, error_of
from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.tasks.periodic import run_periodically
from bus_schemas.streams import StreamSpec, stream_specs

NOT_FOUND = 10059
KEEP_EVERY_S = 10.0
"""A stream that somebody deleted is missed for so long: less than a lease of watts lasts."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamChange:
    """One difference between what is wanted and what is there. ``refused``: only an operator may, by hand."""

    stream: str
    what: str
    refused: str = ""

    def __str__(self) -> str:
        mark = "!" if self.refused else ("+" if self.what == "create" else "~")
        return f"{mark} {self.stream}: {self.what}" + (f" (refused: {self.refused})" if self.refused else "")


def wanted(bus: Bus, replicas: int | None = None) -> tuple[StreamSpec, ...]:
    """The streams that this connection's settings ask for."""
    return stream_specs(bus.subjects, replicas=replicas or bus.settings.replicas)


async def plan(bus: Bus, replicas: int | None = None) -> list[StreamChange]:
    """Every difference: what `apply` would do, and what it would refuse to. Empty: nothing."""
    changes: list[StreamChange] = []
    for spec in wanted(bus, replicas):
        changes += differences(spec, await _there(bus, spec.name))
    return changes


async def apply(bus: Bus, replicas: int | None = None) -> list[StreamChange]:
    """Create what is missing and grow what is smaller; returns what was done and what was refused."""
    done: list[StreamChange] = []
    for spec in wanted(bus, replicas):
        there = await _there(bus, spec.name)
        changes = differences(spec, there)
        if there is None:
            await _ask(bus, f"STREAM.CREATE.{spec.name}", spec.config())
        elif any(not change.refused for change in changes):
            # What is refused stays as the server has it; what else differs is brought about.
            kept = {change.what.split(" ", 1)[0] for change in changes if change.refused}
            fresh = {key: value for key, value in spec.config().items() if key not in kept}
            await _ask(bus, f"STREAM.UPDATE.{spec.name}", {**there, **fresh})
        done += changes
    return done


async def keep(bus: Bus, every_s: float = KEEP_EVERY_S) -> None:
    """See to it that the streams exist, until cancelled: at once, after each reconnect and now and then.

    A single server forgets a stream in memory when it restarts, and telemetry has none to go to until it is made again.
    """

    async def work() -> None:
        for change in await apply(bus):
            _log.info("streams: %s", change)

    await run_periodically(bus, "the streams", work, every_s)


async def _there(bus: Bus, name: str) -> dict[str, Any] | None:
    answer = await _ask(bus, f"STREAM.INFO.{name}", None, missing_ok=True)
    config: dict[str, Any] | None = answer.get("config")
    return config


async def _ask(bus: Bus, call: str, body: Mapping[str, Any] | None, *, missing_ok: bool = False) -> dict[str, Any]:
    payload = json.dumps(body).encode() if body is not None else b""
    value = answer(await ask(bus, f"$JS.API.{call}", payload))
    refusal = error_of(value)
    if refusal is not None and not (missing_ok and refusal.code == NOT_FOUND):
        raise ProvisionRefusedError(f"{call}: {refusal.text}")
    return value


_GROWING = ("max_age", "max_msgs_per_subject", "max_bytes", "max_consumers", "duplicate_window", "num_replicas")
_SETTLED = {"storage", "retention", "deny_delete", "deny_purge"}
_UNLIMITED = {"max_age": 0, "max_msgs_per_subject": -1, "max_bytes": -1}
_SHRINK = "it would shrink what is there"


def differences(spec: StreamSpec, there: Mapping[str, Any] | None) -> list[StreamChange]:
    """What separates a stream on the server from its spec; ``there`` is None where it does not exist."""
    if there is None:
        return [StreamChange(spec.name, "create")]
    return list(_compare(spec.name, spec.config(), there))


def _compare(name: str, want: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[StreamChange]:
    for key, new in want.items():
        old = there.get(key)
        if old == new or (old is None and new in (False, "", [], -1)):
            continue
        yield StreamChange(name, f"{key} {_say(key, old)} -> {_say(key, new)}", _objection(key, old, new))


def _objection(key: str, old: Any, new: Any) -> str:
    if key in _GROWING and old is not None:
        unlimited = _UNLIMITED.get(key)
        if old == unlimited or (new != unlimited and new < old):
            return _SHRINK
    if key == "subjects" and set(old or ()) - set(new):
        return "subjects would no longer be stored"
    if key == "sources" and old:
        return "sources of an existing stream stay as they are"
    if key in _SETTLED and (key in {"storage", "retention"} or old):
        return "the server can not change it on an existing stream"
    return ""


def _say(key: str, value: Any) -> str:
    if key in {"max_age", "duplicate_window"} and isinstance(value, int):
        return f"{value / 1e9:.12g} s"
    return json.dumps(value)
