"""Hides a login that is part of an address, wherever a setting is shown."""

from __future__ import annotations

import re

_LOGIN = re.compile(r"[^\s/,'\"\[\]]+@")


def masked(text: str) -> str:
    """``text`` with ``***`` for whatever precedes an ``@`` in a word, with or without a scheme before it."""
    return _LOGIN.sub("***@", text)
