"""Why a decision says what it says: a machine's word and a person's sentence."""

from __future__ import annotations

from bus_schemas.v1.message import Part


class Reason(Part):
    """``code`` is from the closed vocabulary of the planner; ``text`` is one sentence for people."""

    code: str
    text: str = ""
