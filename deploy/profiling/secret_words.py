"""Which words of an engine's command line hold secrets: those are never started with, logged or written down. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

OWNER = "(?:api|access|admin|auth|bearer|hf|hub|huggingface|private|secret)"
SECRET = re.compile(rf"^--?(?:token|(?:.*[-_])?(?:{OWNER}[-_](?:key|token)|password|passphrase|secret))$")
"""Names of options whose value is one: ``--api-key``, ``--hf-token``, ``--ssl-keyfile-password``."""


def holds_secret(option: str) -> bool:
    """Whether the value of an option is a secret, by its name."""
    return SECRET.match(option) is not None


def secret_option(words: Iterable[str]) -> str | None:
    """The first option in a command that has a secret as its value; None where there is none."""
    before = ""
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and holds_secret(name):
            return name
        if before and not word.startswith("-"):
            return before
        before = word if holds_secret(word) else ""
    return None
