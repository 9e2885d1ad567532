"""The reason of a decision, as a code for machines and a sentence for people."""

from __future__ import annotations

from bus_schemas.v1.message import Part


class Reason(Part):
    """``code``: one of the planner's fixed set of codes; ``text``: one sentence for people."""

    code: str
    text: str = ""
