"""JSON Schemas and an AsyncAPI 3 document, generated from the models for readers in any language.

    python -m bus_schemas.export.generate          writes them beside this file
    python -m bus_schemas.export.generate --check  exit 1 where the files differ from the models

The files are committed and tested for drift. Fields with a default may be absent in messages of an older minor version,
and messages of a newer one may hold fields that are not named here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from bus_schemas.codec import CONTENT_TYPE
from bus_schemas.streams import stream_of
from bus_schemas.subjects import Subjects
from bus_schemas.v1 import MESSAGES, Message

HERE = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
PUBLIC = "urn:wattscale:v1"
_CHANNELS = {
    "scaling_decision": ("decision", "scaling", "deployment", "How many workers a deployment should run."),
    "power_decision": ("decision", "power", "node", "The complete desired power caps of a node."),
    "scaling_ack": ("ack", "scaling", "deployment", "How far a scaling decision has come."),
    "power_ack": ("ack", "power", "node", "What caps are in force on a node."),
    "node_telemetry": ("telemetry", "node", "node", "Readings of a node's GPUs."),
    "plan_record": ("telemetry", "plan", "deployment", "What the planner observed and decided in one tick."),
    "budget_change": ("control", "budget", "site", "A site's new power budget."),
    "deployment_control": ("control", "deployment", "deployment", "Pause, resume, pin or release a deployment."),
    "node_control": (
        "control",
        "node",
        "node",
        "A node is gone or back, or its GPUs are held.",
    ),
}
_WHO = {
    "deployment": "The deployment's name with '.' written '_'.",
    "node": "The node's name with '.' written '_'.",
    "digest": "The first 32 hexadecimal digits of the SHA-256 of the target's name.",
    "site": "The site's name with '.' written '_'.",
    "stream": "The stream that held the message.",
    "consumer": "The consumer that could not carry out the message.",
}


def short(cls: type[Message]) -> str:
    """``power_decision`` of ``wattscale.v1.power_decision``."""
    return cls.type_name().rsplit(".", 1)[1]


def message_schema(cls: type[Message]) -> dict[str, Any]:
    """One message as a JSON Schema of its own."""
    schema = cls.model_json_schema(mode="validation")
    return {"$schema": DIALECT, "$id": f"{PUBLIC}:{short(cls)}", **_with_type(schema)}


def _with_type(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with ``type`` required: it has a default in the model, but every body holds it."""
    return {**schema, "required": ["type", *(one for one in schema.get("required", []) if one != "type")]}


def asyncapi() -> dict[str, Any]:
    """The whole contract as one AsyncAPI 3 document, from the point of view of a client on the bus."""
    _, shared = models_json_schema(
        [(cls, "validation") for cls in MESSAGES], ref_template="#/components/schemas/{model}"
    )
    schemas = dict(shared.get("$defs", {}))
    for cls in MESSAGES:
        schemas[cls.__name__] = _with_type(schemas[cls.__name__])
    schemas["Headers"] = _headers()
    channels = dict(_channels())
    return {
        "asyncapi": "3.0.0",
        "id": PUBLIC,
        "info": {
            "title": "Wattscale bus",
            "version": "1.0.0",
            "description": "Scaling and power decisions for LLM inference, their acknowledgements, telemetry and "
            "control, on NATS JetStream. The prefix `wattscale` is a setting.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": channels,
        "operations": _operations(channels),
        "components": {"messages": {cls.__name__: _message(cls) for cls in MESSAGES}, "schemas": schemas},
    }


def _channels() -> Iterator[tuple[str, dict[str, Any]]]:
    subjects = Subjects()
    by_name = {short(cls): cls for cls in MESSAGES}
    for name, (kind, what, who, words) in _CHANNELS.items():
        address = f"{subjects.root}.{kind}.{what}.{{{who}}}"
        yield name, _channel(address, by_name[name], words, [who], stream_of(subjects, address))
    lease = subjects.lease()
    yield "lease", _channel(lease, by_name["lease"], "The planners' leadership lease.", [], stream_of(subjects, lease))
    for what, who in (("deployment", "deployment"), ("target", "digest")):
        claim = f"{subjects.root}.claim.{what}.{{{who}}}"
        words = f"Which connector scales a {what}: a lease with a time to live, renewed by its holder."
        yield f"{what}_claim", _channel(claim, by_name["lease"], words, [who], stream_of(subjects, claim))
    letters = f"{subjects.root}.deadletter.{{stream}}.{{consumer}}"
    words, stream = "Messages that cannot be carried out.", stream_of(subjects, subjects.all_deadletters())
    yield "dead_letter", _channel(letters, by_name["dead_letter"], words, ["stream", "consumer"], stream)


def _channel(address: str, cls: type[Message], words: str, who: list[str], stream: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "address": address,
        "description": f"{words} Stored in the JetStream stream {stream}; republished below `wattscale.stored.`.",
        "messages": {cls.__name__: {"$ref": f"#/components/messages/{cls.__name__}"}},
    }
    if who:
        made["parameters"] = {name: {"description": _WHO[name]} for name in who}
    return made


def _operations(channels: dict[str, dict[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, channel in channels.items():
        (message,) = channel["messages"]
        where = {"$ref": f"#/channels/{name}"}
        for verb, action in (("publish", "send"), ("observe", "receive")):
            made[f"{verb}_{name}"] = {
                "action": action,
                "channel": where,
                "messages": [{"$ref": f"#/channels/{name}/messages/{message}"}],
            }
    return made


def _message(cls: type[Message]) -> dict[str, Any]:
    return {
        "name": cls.type_name(),
        "title": cls.__name__,
        "summary": (cls.__doc__ or "").strip().splitlines()[0],
        "contentType": CONTENT_TYPE,
        "headers": {"$ref": "#/components/schemas/Headers"},
        "payload": {"$ref": f"#/components/schemas/{cls.__name__}"},
    }


def _headers() -> dict[str, Any]:
    """The schema of the headers: CloudEvents in binary mode, and those of JetStream and W3C."""
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "Nats-Msg-Id": {
                **text,
                "description": "The same on every retry; the server drops repeats for two minutes.",
            },
            "Content-Type": {**text, "const": CONTENT_TYPE},
            "ce-specversion": {**text, "const": "1.0"},
            "ce-id": {**text, "description": "As Nats-Msg-Id."},
            "ce-type": {**text, "description": "As the body's `type`."},
            "ce-source": {**text, "description": "The name of the publisher."},
            "ce-time": {**text, "format": "date-time"},
            "traceparent": {
                **text,
                "description": "W3C trace context of the tick that led to the decision; acknowledgements repeat it.",
            },
        },
        "required": ["ce-specversion", "ce-id", "ce-type", "ce-source"],
    }


def files() -> dict[Path, str]:
    """Every generated file and its text."""
    made = {HERE / "schemas" / f"{short(cls)}.schema.json": _text(message_schema(cls)) for cls in MESSAGES}
    made[HERE / "asyncapi.json"] = _text(asyncapi())
    return made


def _text(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def drifted() -> list[Path]:
    """Files that differ from the models, and files that no model generates any more."""
    wanted = files()
    wrong = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    return wrong + [path for path in HERE.glob("schemas/*.json") if path not in wanted]


def main() -> int:
    """Write or check the files; the exit code."""
    if "--check" in sys.argv[1:]:
        for path in drifted():
            print(f"differs from the models: {path.relative_to(HERE)}")
        return 1 if drifted() else 0
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
