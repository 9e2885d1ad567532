"""A licence is what the metadata of a package state: an expression, an identifier, or a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.releases.licences import Installed, Licence, installed, stated_licence

OSI = "License :: OSI Approved :: "


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"License-Expression": ["MIT OR Apache-2.0"], "License": ["BSD"]}, Licence(expression="MIT OR Apache-2.0")),
        ({"License": ["Apache 2.0"]}, Licence(spdx_id="Apache-2.0")),
        ({"License": ["Apache 2.0"], "Classifier": [OSI + "MIT License"]}, Licence(spdx_id="Apache-2.0")),
        ({"Classifier": ["Topic :: System", OSI + "MIT License"]}, Licence(spdx_id="MIT")),
        ({"License": ["BSD"], "Classifier": [OSI + "BSD License"]}, Licence(name="BSD License")),
        ({"License": ["BSD 3-Clause License\n\nCopyright"], "Classifier": []}, Licence(spdx_id="BSD-3-Clause")),
        ({"License": ["Ours alone"]}, Licence(name="Ours alone")),
        ({"License": ["x" * 100]}, None),
        ({"License": ["=====\nText"]}, None),
        ({"License": [""], "Classifier": ["Topic :: System"]}, None),
        ({}, None),
    ],
)
def test_what_is_stated(metadata: dict[str, list[str]], licence: Licence | None) -> None:
    assert stated_licence(metadata) == licence


def test_the_first_folder_counts(tmp_path: Path) -> None:
    for folder, version in (("first", "2"), ("second", "1")):
        place = tmp_path / folder / f"Some_Part-{version}.dist-info"
        place.mkdir(parents=True)
        (place / "METADATA").write_text(f"Metadata-Version: 2.4\nName: Some_Part\nVersion: {version}\nLicense: MIT\n")
    found = installed([str(tmp_path / "first"), str(tmp_path / "second")])
    assert found == {"some-part": Installed("2", Licence(spdx_id="MIT"))}
