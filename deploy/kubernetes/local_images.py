"""Our images for the cluster: built from this checkout, and named by their content so that pods follow a change."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.kubernetes.cluster_programs import ClusterProgram
from deploy.kubernetes.pinned import BASE
from deploy.kubernetes.watched_command import Programs, TryError

IMAGES = ("planner", "agent")
BUILT_TAG = "try"
PULL_S, BUILD_S = 600.0, 1800.0
REVISION = '{{index .Config.Labels "org.opencontainers.image.revision"}}'


@dataclass(frozen=True, slots=True)
class LocalImages:
    """``base``: an image by its digest; empty: the pinned one, which is fetched."""

    programs: Programs
    root: Path
    base: str = ""

    def put_into(self, cluster: ClusterProgram) -> dict[str, str]:
        """Build what is not there for this commit, and copy it to the cluster. The tag of each image.

        Raises TryError.
        """
        if not self._current():
            build = [str(self.root / "deploy/images/build"), "--base", self.base or self._fetched_base()]
            self.programs.run([*build, "--tag", BUILT_TAG], "the images", BUILD_S)
        tags = {}
        for image in IMAGES:
            built = f"wattscale/{image}:{BUILT_TAG}"
            identity = self._inspected(built, "{{.Id}}").removeprefix("sha256:")
            tags[image] = f"{BUILT_TAG}-{identity[:12]}"
            named = f"wattscale/{image}:{tags[image]}"
            self.programs.answer(["docker", "tag", built, named], f"image {named}")
            cluster.load(named)
        return tags

    def _current(self) -> bool:
        """Whether both images are of the commit that is checked out; never where a file differs from it."""
        try:
            words = ["git", "--no-optional-locks", "-C", str(self.root), "status", "--porcelain"]
            if self.base or self.programs.answer(words, "git status").strip():
                return False
            commit = self.programs.answer(["git", "-C", str(self.root), "rev-parse", "HEAD"], "git").strip()
            found = {self._inspected(f"wattscale/{image}:{BUILT_TAG}", REVISION) for image in IMAGES}
        except TryError:
            return False  # no image, or no checkout: the build says what is wrong
        return found == {commit}

    def _fetched_base(self) -> str:
        """The pinned base by its digest, as the build wants it."""
        if not self.programs.succeeds(["docker", "image", "inspect", BASE], "docker"):
            self.programs.run(["docker", "pull", BASE], f"image {BASE}", PULL_S)
        return self._inspected(BASE, "{{index .RepoDigests 0}}")

    def _inspected(self, image: str, form: str) -> str:
        words = ["docker", "image", "inspect", "--format", form, image]
        return self.programs.answer(words, f"image {image}").strip()
