"""The images, built as a user builds them, on an engine of the tests' own and from a base made of Debian's packages."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.doubles import base_image
from tests.doubles.docker_engine import engine, why_not
from tests.kept_environment import NOT_TO_BE_HAD

ROOT = Path(__file__).resolve().parents[3]
ROLES = ("planner", "agent")
TAG = "test"
FETCH_WITHIN_S, BUILD_WITHIN_S = 600, 1200


@dataclass(frozen=True)
class Images:
    """``lines``: what deploy/images/build printed, by image."""

    client: Any
    base: str
    lines: dict[str, str]

    def name(self, image: str) -> str:
        """As `docker run` takes it."""
        return f"wattscale/{image}:{TAG}"


def missing_part() -> str | None:
    """Why images cannot be built here, or None."""
    return why_not() or base_image.why_not()


@contextmanager
def built_images(folder: Path) -> Iterator[Images]:
    """Both images on a running engine, which the environment names for testcontainers too."""
    wheels = folder / "wheels"
    _fetch(wheels)
    with engine(folder) as host, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", host)
        patch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
        client = docker.DockerClient(base_url=host, timeout=600)
        try:
            archive = folder / "base.tar"
            archive.write_bytes(base_image.archive())
            client.api.import_image_from_file(str(archive), repository="debian-of-this-machine", tag=TAG)
            archive.unlink()
            base = client.images.get(f"debian-of-this-machine:{TAG}").id
            lines = _build("--base", base, "--tag", TAG, "--wheels", str(wheels))
            assert len(lines) == len(ROLES)
            yield Images(client, base, dict(zip(ROLES, lines, strict=True)))
        finally:
            client.close()


def _fetch(wheels: Path) -> None:
    """Skips with the reason where the packages cannot be had."""
    # The base's own Python fetches them: they are for its version.
    variables = {**os.environ, "PYTHON": "/usr/bin/python3"}
    command = [str(ROOT / "deploy/images/wheels"), str(wheels)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=FETCH_WITHIN_S)
    if done.returncode != 0:
        reason = f"no packages for images: {done.stderr.strip().splitlines()[-1:]}"
        if os.environ.get("WATTSCALE_REQUIRE_PARTS") and not any(sign in done.stderr for sign in NOT_TO_BE_HAD):
            pytest.fail(f"{reason}: {done.stderr}")
        pytest.skip(reason)


def _build(*arguments: str) -> list[str]:
    """The lines that deploy/images/build prints."""
    done = subprocess.run(
        [str(ROOT / "deploy/images/build"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_WITHIN_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
