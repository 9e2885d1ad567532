"""Under which licence each locked package comes, by the metadata of what is installed here."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from deploy.advisories import plain_name

LONGEST_NAME = 60
"""Characters: some packages put the whole text of their licence where its name belongs."""
SPDX_IDS = {
    "0BSD": "0BSD",
    "Apache 2": "Apache-2.0",
    "Apache 2 License": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "Apache-2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD 2-Clause License": "BSD-2-Clause",
    "BSD 3-Clause License": "BSD-3-Clause",
    "BSD-2-Clause": "BSD-2-Clause",
    "BSD-3-Clause": "BSD-3-Clause",
    "ISC": "ISC",
    "MIT": "MIT",
    "MIT License": "MIT",
    "MPL-2.0": "MPL-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSF-2.0": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""Identifiers of https://spdx.org/licenses/ by the words that packages use. A family without a version has none."""


@dataclass(frozen=True, slots=True)
class Licence:
    """What a package's metadata states. One of the three is set; ``expression`` is one of SPDX's."""

    expression: str = ""
    spdx_id: str = ""
    name: str = ""

    def __str__(self) -> str:
        return self.expression or self.spdx_id or self.name


@dataclass(frozen=True, slots=True)
class Installed:
    """An installed package: its version, and its licence, or None where its metadata states none."""

    version: str
    licence: Licence | None


def installed(folders: Sequence[str]) -> dict[str, Installed]:
    """What is installed in these folders, by normalised name; the first folder that has a name counts."""
    found: dict[str, Installed] = {}
    for one in importlib.metadata.distributions(path=list(folders)):
        metadata = one.metadata
        if one.name:
            licence = stated_licence(
                {key: metadata.get_all(key) or [] for key in ("License-Expression", "License", "Classifier")}
            )
            found.setdefault(plain_name(one.name), Installed(one.version, licence))
    return found


def stated_licence(metadata: Mapping[str, Iterable[str]]) -> Licence | None:
    """By License-Expression; else by License where that is a name; else by the classifiers; else None."""
    for expression in metadata.get("License-Expression", ()):
        return Licence(expression=expression)
    lines = [line for text in metadata.get("License", ()) for line in text.strip().splitlines()[:1]]
    kinds = [one.rpartition(" :: ")[2] for one in metadata.get("Classifier", ()) if one.startswith("License ::")]
    words = [line for line in lines if line in SPDX_IDS] + [kind for kind in kinds if kind != "OSI Approved"]
    words += [line for line in lines if len(line) <= LONGEST_NAME and re.match(r"[A-Za-z0-9]", line)]
    known = [word for word in words if word in SPDX_IDS]
    if known:
        return Licence(spdx_id=SPDX_IDS[known[0]])
    return Licence(name=words[0]) if words else None
