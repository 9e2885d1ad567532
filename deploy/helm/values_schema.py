"""The JSON Schema of the chart's values: closed at every level, with the settings files of the services inside.

Draft 7, which Helm 3 and 4 both read. The settings come from the models that read the files, so a name that those
refuse is refused by `helm install` already.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from agent.connectors.autoscaler.autoscaler_file import AutoscalerFile
from agent.connectors.connector_file import ConnectorFile
from agent.connectors.kubernetes.kubernetes_file import KubernetesFile
from agent.runtime.agent_file import AgentFile
from planner.runtime.config.settings import Settings

Schema = dict[str, Any]
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "array", "items": TEXT}
STRING_MAP: Schema = {"type": "object", "additionalProperties": TEXT}
OBJECTS: Schema = {"type": "array", "items": {"type": "object"}}
"""Kubernetes' own lists (tolerations, peers), which Kubernetes checks."""
NKEY: Schema = {"type": "string", "pattern": "^(U[A-Z2-7]{55})?$"}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", "maxLength": 30}
CONNECTOR_NAME: Schema = {**NAME, "not": {"enum": ["planner"]}}
"""Not the planner's: a connector's credentials are the file of its name, beside the planner's."""
QUANTITIES: Schema = {
    "type": "object",
    "additionalProperties": {"anyOf": [TEXT, {"type": "number"}]},
}

PLANNER_OWNS = ("bus", "health", "lease", "kubernetes")
AGENT_OWNS = ("node", "nats", "kubernetes", "http", "state_file", "lock_file")
CONNECTOR_OWNS = ("nats", "http")
"""Sections that the chart writes itself."""


def closed(required: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    """An object that has these properties and no others."""
    made: Schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {**made, "required": list(required)} if required else made


def choice(*values: Any) -> Schema:
    """One of these values."""
    return {"enum": list(values)}


def whole(least: int, most: int) -> Schema:
    """A whole number within these bounds."""
    return {"type": "integer", "minimum": least, "maximum": most}


def values_schema() -> Schema:
    """The schema of values.yaml."""
    definitions: Schema = {}
    planner = _settings(Settings, "planner", PLANNER_OWNS, definitions)
    agent = _settings(AgentFile, "agent", AGENT_OWNS, definitions)
    connectors = {
        "kubernetes": _settings(KubernetesFile, "kubernetes", CONNECTOR_OWNS, definitions),
        "virtual": _settings(ConnectorFile, "virtual", CONNECTOR_OWNS, definitions),
        "autoscaler": _settings(AutoscalerFile, "autoscaler", CONNECTOR_OWNS, definitions),
    }
    whole_schema = closed(
        nameOverride=TEXT,
        fullnameOverride=TEXT,
        imagePullSecrets={"type": "array", "items": closed(("name",), name=TEXT)},
        images=closed(
            pullPolicy=choice("Always", "IfNotPresent", "Never"), planner=_image(), agent=_image(), nats=_image()
        ),
        planner=_planner(planner),
        agent=_agent(agent),
        connectors=_connectors(connectors),
        connectorResources=_resources(),
        requests=closed(
            enabled=FLAG,
            definition=FLAG,
            namespace=TEXT,
            offlineImage=TEXT,
            prometheus=TEXT,
            quick=FLAG,
            rankCandidates=FLAG,
            resources=_resources(),
        ),
        nats=_nats(),
        networkPolicy=closed(enabled=FLAG, busClients=OBJECTS, metricsClients=OBJECTS),
        monitoring=_monitoring(),
    )
    whole_schema["properties"]["global"] = {"type": "object"}
    return {"$schema": "http://json-schema.org/draft-07/schema#", **whole_schema, "definitions": definitions}


def _image() -> Schema:
    digest = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
    return closed(("repository",), repository=TEXT, tag=TEXT, digest=digest)


def _resources() -> Schema:
    return closed(requests=QUANTITIES, limits=QUANTITIES)


def _pod() -> dict[str, Schema]:
    return {"resources": _resources(), "nodeSelector": STRING_MAP, "tolerations": OBJECTS}


def _planner(settings: Schema) -> Schema:
    profile = closed(("configMap", "path"), configMap=TEXT, path={"type": "string", "pattern": "^/"})
    keys = {"prefill_raw_data.json": TEXT, "decode_raw_data.json": TEXT}
    return closed(
        enabled=FLAG,
        replicas=whole(1, 5),
        settings=settings,
        profiles={"type": "array", "items": profile},
        profileData=closed(**keys),
        graphNamespaces=TEXTS,
        steerSecret=TEXT,
        podAnnotations=STRING_MAP,
        **_pod(),
    )


def _agent(settings: Schema) -> Schema:
    return closed(
        enabled=FLAG,
        settings=settings,
        runtimeClassName=TEXT,
        privileged=FLAG,
        priorityClassName=TEXT,
        podAnnotations=STRING_MAP,
        **_pod(),
    )


def _connectors(kinds: dict[str, Schema]) -> Schema:
    one_of = [
        closed(("kind", "settings"), kind=choice(kind), settings=settings, secret=TEXT)
        for kind, settings in kinds.items()
    ]
    return {"type": "object", "propertyNames": CONNECTOR_NAME, "additionalProperties": {"oneOf": one_of}}


def _nats() -> Schema:
    client = closed(("nkey", "deployments"), nkey=NKEY, deployments={**TEXTS, "minItems": 1})
    clients = {"type": "object", "additionalProperties": client}
    auth = closed(
        mode=choice("none", "nkey", "creds"),
        clientSecret=TEXT,
        agentSecret=TEXT,
        planner=NKEY,
        operator=NKEY,
        observer=NKEY,
        system=NKEY,
        agents={"type": "object", "additionalProperties": NKEY},
        connectors=clients,
        pinners=clients,
    )
    return closed(
        enabled=FLAG,
        replicas=choice(1, 3, 5),
        servers=TEXTS,
        prefix={"type": "string", "minLength": 1},
        storage=closed(size=TEXT, className=TEXT),
        tls=closed(enabled=FLAG, serverSecret=TEXT, clientSecret=TEXT),
        auth=auth,
        **_pod(),
    )


def _monitoring() -> Schema:
    workers = closed(enabled=FLAG, namespaces=TEXTS, port=TEXT, frontendPort=TEXT)
    return closed(
        operator=choice("auto", True, False),
        labels=STRING_MAP,
        interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
        rules=FLAG,
        dashboards=closed(enabled=FLAG, labels=STRING_MAP),
        workers=workers,
    )


def _settings(model: type[BaseModel], prefix: str, owned: tuple[str, ...], definitions: Schema) -> Schema:
    """A settings file's schema without the sections that the chart writes; its parts go into ``definitions``."""
    template = f"#/definitions/{prefix}{{model}}"
    by_alias = model.model_json_schema(by_alias=True, ref_template=template)
    by_name = model.model_json_schema(by_alias=False, ref_template=template)
    for part, schema in by_name.pop("$defs", {}).items():
        other = by_alias["$defs"][part].get("properties", {})
        definitions[f"{prefix}{part}"] = _plain(_both_names(schema, other))
    made: Schema = _plain(by_name)
    for name in owned:
        made["properties"].pop(name, None)
    if required := [name for name in made.pop("required", []) if name not in owned]:
        made["required"] = required
    return made


def _both_names(schema: Schema, by_alias: Schema) -> Schema:
    """Settings may be written by name or by alias, so that none of those with an alias is required here."""
    if "properties" not in schema:
        return schema
    other = {name: value for name, value in by_alias.items() if name not in schema["properties"]}
    made = {**schema, "properties": {**schema["properties"], **other}}
    required = [name for name in schema.get("required", []) if name in by_alias]
    made.pop("required", None)
    return {**made, "required": required} if required else made


def _plain(schema: Any) -> Any:
    """Without texts, which are long, and without what draft 7 does not know."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = {"title", "description", "default", "format", "writeOnly", "discriminator"}
    return {
        key: {name: _plain(one) for name, one in value.items()} if key == "properties" else _plain(value)
        for key, value in schema.items()
        if key not in left_out
    }
