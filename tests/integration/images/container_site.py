"""Planner, agents and connector as containers, beside a bus in a container: each with no more than it needs."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from testcontainers.core.container import DockerContainer

from tests.integration.images.built_images import Images

WAIT_S = 120.0
LEAST: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}


class ContainerSite:
    """Starts containers; all end with it."""

    def __init__(self, images: Images, folder: Path, stack: ExitStack) -> None:
        self.images, self._folder, self._stack = images, folder, stack
        folder.chmod(0o755)

    def started(
        self,
        image: str,
        command: list[str],
        name: str,
        settings: dict[str, Any] | None = None,
        files: tuple[tuple[str, str], ...] = (),
        **options: Any,
    ) -> Any:
        """Start a container; ``settings`` become /etc/wattscale/NAME.yaml. The docker library's own container."""
        home = self._folder / name
        home.mkdir(mode=0o755)
        if settings is not None:
            (home / f"{name}.yaml").write_text(yaml.safe_dump(settings))
        for file, text in files:
            (home / file).write_text(text)
        for each in home.iterdir():
            each.chmod(0o644)
        container = DockerContainer(image).with_command(command).with_kwargs(**LEAST, **options)
        container.with_volume_mapping(str(home), "/etc/wattscale", "ro").with_tmpfs_mount("/tmp")
        self._stack.enter_context(container)
        return container.get_wrapped_container()

    def run(self, *command: str) -> str:
        """Run one command of the planner's image to its end; its output. Fails where the command does."""
        name = self.images.name("planner")
        done = self.images.client.containers.run(name, list(command), remove=True, stderr=True, **LEAST)
        return str(done.decode())


@contextmanager
def container_site(images: Images, folder: Path) -> Iterator[ContainerSite]:
    """A site; where the test fails, the logs of its containers are shown."""
    with ExitStack() as stack:
        try:
            yield ContainerSite(images, folder, stack)
        except BaseException:
            for container in images.client.containers.list(all=True):
                print(f"--- {container.name} {container.attrs['Config']['Cmd']}")
                print(container.logs(tail=40).decode(errors="replace"))
            raise


def address(container: Any) -> str:
    """The container's address on the engine's own network."""
    container.reload()
    return str(container.attrs["NetworkSettings"]["Networks"]["bridge"]["IPAddress"])


def until_ready(container: Any, url: str) -> float:
    """Wait for 200 from ``url``; the seconds since the container was started, which say nothing on a busy machine."""
    began = time.monotonic()
    words = "no answer"
    while time.monotonic() - began < WAIT_S:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                answer.read()
                return time.monotonic() - began
        except urllib.error.HTTPError as error:
            words = error.read().decode(errors="replace")
        except OSError as error:
            words = str(error)
        container.reload()
        if container.status not in ("created", "running"):
            break
        time.sleep(0.05)
    raise AssertionError(f"{url}: not ready: {words}; {container.status}: {container.logs(tail=20).decode()}")
