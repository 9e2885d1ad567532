"""What the forms of a request share: strict sections, names, bounds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

MOST_TOKENS = 10**9
MOST_GPUS = 1_000_000
MOST_GPUS_PER_ENGINE = 1024
MOST_MS = 86_400_000.0
LONGEST_NAME = 48
"""A name is part of a job's, ``profile-online-<name>``, which Kubernetes bounds to 63 characters."""

Milliseconds = Annotated[float, Field(gt=0, le=MOST_MS, allow_inf_nan=False)]
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]
EngineGpus = Annotated[int, Field(ge=1, le=MOST_GPUS_PER_ENGINE)]
Gpus = Annotated[int, Field(ge=1, le=MOST_GPUS)]
ObjectName = Annotated[str, Field(max_length=LONGEST_NAME, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
OptionalName = Annotated[str, Field(max_length=63, pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$")]
Text = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")]
OptionalText = Annotated[str, Field(max_length=1024, pattern=r"^\S*$")]
Words = Annotated[dict[str, str], Field(max_length=100)]
Raw = Annotated[dict[str, Any], Field(max_length=1000)]


def _zero_is_unset(value: Any) -> Any:
    """Dynamo's profiler writes 0 for a number that it finds by itself."""
    return None if value == 0 and not isinstance(value, bool) else value


UnsetOrTokens = Annotated[Tokens | None, BeforeValidator(_zero_is_unset)]
UnsetOrEngineGpus = Annotated[EngineGpus | None, BeforeValidator(_zero_is_unset)]


class RequestSection(BaseModel):
    """A part of a request. Unknown keys and values of another type are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, alias_generator=to_camel)


class ObjectMetadata(RequestSection):
    """The keys that Kubernetes gives an object; only the first five mean something here."""

    name: ObjectName
    namespace: OptionalName = "default"
    labels: Words = Field(default_factory=dict)
    annotations: Words = Field(default_factory=dict)
    generation: int = Field(default=1, ge=0)
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: Any = None
    deletion_timestamp: Any = None
    deletion_grace_period_seconds: int | None = None
    finalizers: list[str] = Field(default_factory=list)
    owner_references: list[Any] = Field(default_factory=list)
    managed_fields: list[Any] = Field(default_factory=list)


class Manifest(RequestSection):
    """The outermost level. ``status`` is read elsewhere."""

    api_version: str
    kind: str
    metadata: ObjectMetadata
    spec: Raw
    status: Any = None


def not_here(name: str, instead: str) -> BeforeValidator:
    """A key of Dynamo's that nothing here acts on: refused where it is set to more than its default."""

    def refuse(value: Any) -> Any:
        if value:
            raise ValueError(f"{name} is not supported here; {instead}")
        return value

    return BeforeValidator(refuse)
