"""Reads a request from the content of a manifest, and says in a line each what is wrong with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from planner.profiler.requests.alpha_spec import AlphaSpec
from planner.profiler.requests.beta_spec import BetaSpec, OwnSpec
from planner.profiler.requests.power_request import DYNAMO_KIND, OWN_KIND, PowerRequest, RequestForm
from planner.profiler.requests.request_sections import LONGEST_NAME, Manifest

SPECS: Mapping[tuple[str, str], type[AlphaSpec | BetaSpec]] = {
    (DYNAMO_KIND, RequestForm.V1ALPHA1): AlphaSpec,
    (DYNAMO_KIND, RequestForm.V1BETA1): BetaSpec,
    (OWN_KIND, RequestForm.OWN): OwnSpec,
}
CLOSE_ENOUGH = 0.6


class RequestError(Exception):
    """A request that cannot be read. ``problems``: a line each, beginning with the path of the key."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def parse_request(content: Any) -> PowerRequest:
    """The request in a manifest's content, as YAML or JSON gives it. Raises RequestError."""
    if not isinstance(content, dict):
        raise RequestError(["the file: not a mapping with apiVersion, kind, metadata and spec"])
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise RequestError(_problems(error, Manifest, ())) from None
    spec_type = SPECS.get((manifest.kind, manifest.api_version))
    if spec_type is None:
        raise RequestError([_unknown_kind(manifest.kind, manifest.api_version)])
    try:
        spec = spec_type.model_validate(manifest.spec)
    except ValidationError as error:
        raise RequestError(_problems(error, spec_type, ("spec",))) from None
    return PowerRequest(
        form=RequestForm(manifest.api_version),
        name=manifest.metadata.name,
        namespace=manifest.metadata.namespace or "default",
        generation=manifest.metadata.generation,
        spec_hash=spec_hash(manifest.spec),
        **spec.wishes(),
    )


def spec_hash(spec: Mapping[str, Any]) -> str:
    """Alike for specs that differ in ``autoApply`` or in the order of keys only."""
    kept = {key: value for key, value in spec.items() if key != "autoApply"}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _unknown_kind(kind: str, version: str) -> str:
    versions = [known for known_kind, known in SPECS if known_kind == kind]
    if versions:
        return f"apiVersion: {version!r} of {kind} is not known; known: {', '.join(versions)}"
    return f"kind: {kind!r} is not a request; known: {', '.join(dict.fromkeys(known for known, _ in SPECS))}"


def _problems(error: ValidationError, model: type[BaseModel], above: tuple[str, ...]) -> list[str]:
    """A line for each mistake; an unknown key with the known one that is nearest."""
    return [_problem(dict(each), model, above) for each in error.errors(include_url=False)]


def _problem(found: dict[str, Any], model: type[BaseModel], above: tuple[str, ...]) -> str:
    where = ".".join((*above, *map(str, found["loc"]))) or "the file"
    kind, context = found["type"], found.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{where}: unknown key{_nearest(str(found['loc'][-1]), _keys(model, found['loc'][:-1]))}"
    if kind == "missing":
        return f"{where}: missing"
    if kind == "value_error":
        return f"{where}: {context['error']}"
    if kind == "string_pattern_mismatch" and found["loc"][-1:] in (("name",), ("namespace",)):
        return f"{where}: {found['input']!r} is not a name: lower-case letters, digits and -, at most {LONGEST_NAME}"
    if kind == "string_pattern_mismatch":
        return f"{where}: {found['input']!r} has spaces in it, or is empty"
    message = str(found["msg"])
    return f"{where}: {message[0].lower()}{message[1:]}"


def _keys(model: type[BaseModel], path: Iterable[Any]) -> list[str]:
    """The keys of the section at a path."""
    current: Any = model
    for part in path:
        field = next(
            (one for name, one in current.model_fields.items() if part in (name, one.alias)),
            None,
        )
        inner = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), None)
        if current is None:
            return []
    return [one.alias or name for name, one in current.model_fields.items()]


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1, cutoff=CLOSE_ENOUGH)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""
