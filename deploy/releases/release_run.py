"""Makes everything of a release in one folder, or in a folder that it removes (`--check`).

deploy/release --base NAME@sha256:DIGEST FOLDER
deploy/release --check
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.releases.agreed_version import Versions, agreed, changelog_section
from deploy.releases.bill_of_materials import direct_requirements, document, licence_list, parts
from deploy.releases.child_command import ReleaseError, output_of
from deploy.releases.distributions import build_bus, build_product, build_tools
from deploy.releases.licences import installed
from deploy.releases.previous_release import taken_messages, taken_settings, taken_values

ROOT = Path(__file__).resolve().parents[2]
CHART = "deploy/helm/wattscale"
IMAGES = ("planner", "agent")
PLATFORMS = ("linux/amd64", "linux/arm64")
BY_DIGEST = re.compile(r"(^|.+@)sha256:[0-9a-f]{64}")
HELM = "4.3"
PINNED_HELM = f"from tests.tools.manifest_tools import helm; print(helm({HELM!r}))"
"""The tests' own, by hash. A checkout has it; an installation, which has no tests, makes no releases."""
SKIPPED = "Skipped: no environment with helm"
SUMS = "SHA256SUMS"


@dataclass(frozen=True, slots=True)
class ReleasedCommit:
    """The commit that is released. ``revision`` ends in -dirty where files differ from it, as images' labels do."""

    revision: str
    created: str
    epoch_s: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 made (or, with --check, could be made), 1 not, with one line that says why; 2 wrong arguments."""
    options = _parser().parse_args(arguments)
    _refuse_wrong(options)
    try:
        if options.check:
            with tempfile.TemporaryDirectory(prefix="wattscale-release-") as scratch:
                _report(release(ROOT, Path(scratch) / "release", options))
        else:
            _report(release(ROOT, options.folder, options))
    except (ReleaseError, OSError) as error:
        print(f"deploy/release: {error}", file=sys.stderr)
        return 1
    return 0


def release(root: Path, folder: Path, options: argparse.Namespace) -> list[str]:
    """Make the folder; lines that say what is in it. It appears whole or not at all.

    Raises ReleaseError, or OSError where the folder cannot be written.
    """
    versions, commit = agreed(root), released_commit(root)
    taken_settings(root)
    taken = f"reads the previous release's settings and its {taken_messages(root)} recorded messages"
    variables = {"SOURCE_DATE_EPOCH": commit.epoch_s}  # the same commit makes the same wheels
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        notes = add_chart(
            root, made, versions.product, options.helm, changed_s=int(commit.epoch_s), may_lack=options.check
        )
        notes += _add_texts(root, made, versions.product, variables)
        tools = build_tools(root, Path(scratch) / "tools", options.wheels)
        build_product(root, tools, made, versions.product, variables)
        build_bus(root, tools, made, versions.product, variables)
        _add_lists(root, made, versions, commit, options.base)
        sums = checksums(made)
        (made / SUMS).write_text(sums)
        made.rename(folder)
    return [
        *sums.splitlines(),
        taken,
        *notes,
        f"wattscale {versions.product}, bus contract {versions.contract}, {commit.revision}",
    ]


def released_commit(root: Path) -> ReleasedCommit:
    """Raises ReleaseError where this is no checkout."""
    git: list[str | Path] = ["git", "--no-optional-locks", "-C", root]
    shown = output_of([*git, "log", "-1", "--format=%H %cI %ct"], root, "a release is made in a git checkout")
    revision, created, epoch_s = shown.split()
    changed = output_of([*git, "status", "--porcelain"], root, "git status").strip()
    return ReleasedCommit(revision + ("-dirty" if changed else ""), created, epoch_s)


def image_list(root: Path, version: str, commit: ReleasedCommit, base: str | None) -> list[dict[str, object]]:
    """What `deploy/images/build` makes of this revision: names, base by digest, and what each image is made from."""
    return [
        {
            "name": f"wattscale/{image}:{version}",
            "base": base,
            "revision": commit.revision,
            "created": commit.created,
            "platforms": list(PLATFORMS),
            "made_from": {
                file: _sha256(root / file)
                for file in (f"deploy/images/{image}.Dockerfile", f"deploy/images/{image}.lock")
            },
        }
        for image in IMAGES
    ]


def add_chart(
    root: Path, made: Path, version: str, helm: Path | None, *, changed_s: int = 0, may_lack: bool = False
) -> list[str]:
    """Package the chart with ``helm``, or with the Helm that the tests pin; its files carry the time ``changed_s``.

    A line that says which values of the previous release it takes; with ``may_lack``, or why the pinned Helm cannot be
    had, by which its tests would skip. Raises ReleaseError otherwise, and where the chart cannot be packaged.
    """
    program = helm or pinned_helm(root, may_lack=may_lack)
    if isinstance(program, str):
        return [f"left out: the chart: {program}"]
    with tempfile.TemporaryDirectory(prefix="wattscale-chart-") as scratch:
        copy = Path(scratch) / "wattscale"
        shutil.copytree(root / CHART, copy)
        for file in copy.rglob("*"):
            os.utime(file, (changed_s, changed_s))  # Helm keeps it, and a checkout's times are those of its making
        output_of([program, "package", copy, "--destination", made], root, f"{CHART}: helm package")
    if not (made / f"wattscale-{version}.tgz").is_file():
        raise ReleaseError(f"{CHART}: helm package made no wattscale-{version}.tgz")
    return [f"takes the previous chart's values: {', '.join(taken_values(root, program))}"]


def pinned_helm(root: Path, *, may_lack: bool) -> Path | str:
    """The Helm that the tests pin, or with ``may_lack`` a line that says why it cannot be had. Raises ReleaseError."""
    try:
        return Path(output_of([sys.executable, "-c", PINNED_HELM], root, "the tests' Helm").strip())
    except ReleaseError as error:
        if may_lack and SKIPPED in str(error):
            return str(error)
        raise ReleaseError(f"{error}; name one with --helm PROGRAM") from error


def checksums(folder: Path) -> str:
    """A line for each file, as `sha256sum --check` reads it."""
    return "".join(f"{_sha256(path)}  {path.name}\n" for path in sorted(folder.iterdir()))


def _add_texts(root: Path, made: Path, version: str, variables: dict[str, str]) -> list[str]:
    manual = output_of([sys.executable, "-m", "deploy.cli.main", "manual"], root, "wattscale manual", variables)
    (made / "wattscale.1").write_text(manual, encoding="utf-8")
    section, unreleased = changelog_section(root, version)
    (made / "CHANGES.md").write_text(section, encoding="utf-8")
    return [f"CHANGELOG.md marks {version} as unreleased: this is a candidate"] if unreleased else []


def _add_lists(root: Path, made: Path, versions: Versions, commit: ReleasedCommit, base: str | None) -> None:
    found = parts(root, installed([*sys.path, *_tool_folders(made.parent / "tools")]))
    bill = document(versions.product, commit.revision, commit.created, found, direct_requirements(root))
    (made / "sbom.cdx.json").write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    (made / "LICENCES.txt").write_text(licence_list(versions.product, found), encoding="utf-8")
    images = {"bus_contract": versions.contract, "images": image_list(root, versions.product, commit, base)}
    (made / "images.json").write_text(json.dumps(images, indent=2) + "\n", encoding="utf-8")


def _tool_folders(tools: Path) -> list[str]:
    return [str(folder) for folder in sorted(tools.glob("lib/python*/site-packages"))]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _report(lines: Sequence[str]) -> None:
    print("\n".join(lines))


def _refuse_wrong(options: argparse.Namespace) -> None:
    """Ends with exit code 2 and one line."""
    parser = _parser()
    if options.check == (options.folder is not None):
        parser.error("name a folder, or give --check")
    if options.folder is not None and options.folder.exists():
        parser.error(f"{options.folder}: exists; name a new folder")
    if options.base is None and not options.check:
        parser.error("--base NAME@sha256:DIGEST is missing: the image that deploy/images/build was given")
    if options.base is not None and not BY_DIGEST.fullmatch(options.base):
        parser.error(f"--base {options.base}: name the image by its digest, as in NAME@sha256:...")


def _absolute(text: str) -> Path:
    """What the user names is relative to where they are; the commands that use it run elsewhere."""
    return Path(text).absolute()


def _program(text: str) -> Path:
    return _absolute(shutil.which(text) or text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="deploy/release", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=_absolute, nargs="?", metavar="FOLDER", help="a folder to make")
    parser.add_argument("--check", action="store_true", help="make everything, say what it is, and keep nothing")
    parser.add_argument("--base", metavar="IMAGE", help="the images' base by digest, for their list")
    parser.add_argument(
        "--wheels", type=_absolute, metavar="FOLDER", help="filled by deploy/images/wheels: fetch nothing"
    )
    parser.add_argument(
        "--helm", type=_program, metavar="PROGRAM", help="package the chart with this one (default: the tests')"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
