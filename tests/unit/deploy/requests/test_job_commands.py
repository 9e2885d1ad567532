"""What a profiling Job runs names what it lacks, and who gives it."""

from __future__ import annotations

import pytest

from tests.command_line import run

GIVEN = ("--results", "r", "--namespace", "n", "--config-map", "m")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("report", *GIVEN), "--pod-uid is missing: metadata.uid of the pod in which the profiler runs"),
        (
            ("report", *GIVEN[:4]),
            "--config-map is missing: the one that `wattscale request watch` made for the profile",
        ),
        (("upload", *GIVEN[2:]), "--results is missing: the folder that `wattscale profile` writes"),
    ],
)
def test_an_option_that_is_missing_is_explained(words: tuple[str, ...], line: str) -> None:
    done = run("request", *words)
    assert done.code == 2
    assert f"{line}; a profiling Job gives it itself" in done.one_line()
