"""The base class of all messages, and the field types that they share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer


def _rfc3339(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        # An OverflowError is not a ValueError: it would escape the readers' error handling and end their loops.
        raise ValueError("a time whose UTC is outside the years 1 to 9999") from None


Time = Annotated[AwareDatetime, AfterValidator(_utc), PlainSerializer(_rfc3339, return_type=str, when_used="json")]
"""RFC 3339, always UTC, microseconds."""

Watts = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
"""Watts with at most three decimals (milliwatts)."""

Name = Annotated[str, Field(min_length=1, max_length=253)]
DecisionId = Annotated[int, Field(ge=0, le=2**53)]
LastDecisionId = Annotated[int, Field(ge=-1, le=2**53)]
"""-1: none yet."""
WorkerCount = Annotated[int, Field(ge=-1, le=1_000_000)]
"""-1: not set, as in Dynamo's VirtualConnector."""
Epoch = Annotated[int, Field(ge=0)]
"""The sequence of the lease message under which a decision was published."""


class Part(BaseModel):
    """A value inside a message. Frozen; unknown fields are ignored on reading, because v1 only grows."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Message(Part):
    """A body on the bus. Each subclass fixes ``type`` to its own name, which comes first in the JSON."""

    type: str
    time: Time

    @classmethod
    def type_name(cls) -> str:
        """The ``type`` that bodies of this class carry, as ``wattscale.v1.scaling_decision``."""
        default: Any = cls.model_fields["type"].default
        return str(default)


def present(fields: dict[str, Any], *optional: str) -> dict[str, Any]:
    """The fields without those of ``optional`` that are None: most sites never use them."""
    for name in optional:
        if fields.get(name) is None:
            fields.pop(name, None)
    return fields
