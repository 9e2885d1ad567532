"""`deploy/make-venv` installs what the lock names and nothing else, whatever an index has to offer by now."""

import hashlib
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# A build backend within the tree: installing the checkout needs no package from an index.
BACKEND = """
import zipfile


def build_editable(folder, config_settings=None, metadata_directory=None):
    name = "NAME-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("NAME-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: NAME\\nVersion: 1.0\\nNEEDS")
        wheel.writestr("NAME-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("NAME-1.0.dist-info/RECORD", "")
    return name
"""


def _wheel(folder: Path, name: str, version: str, *metadata: str) -> str:
    """Writes an empty wheel; returns its line in a lock."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", *metadata, ""]
        wheel.writestr(f"{info}/METADATA", "\n".join(lines))
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return f"{name}=={version} --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def _checkout(folder: Path) -> Path:
    """The least tree that `make-venv` can serve."""
    (folder / "deploy").mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "make-venv", folder / "deploy" / "make-venv")
    for place, name, needs in ((folder, "product", "Requires-Dist: bus==1.0\\n"), (folder / "bus_schemas", "bus", "")):
        (place / "backend").mkdir(parents=True)
        (place / "backend" / "tiny_backend.py").write_text(BACKEND.replace("NAME", name).replace("NEEDS", needs))
        (place / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "tiny_backend"\nbackend-path = ["backend"]\n'
        )
    return folder


def _make(checkout: Path, lock: Path, index: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "WATTSCALE_"))}
    alone = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}
    return subprocess.run(
        [str(checkout / "deploy" / "make-venv"), str(lock)],
        env={**kept, **alone},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.long
def test_a_newer_release_than_the_locked_one_changes_nothing(tmp_path: Path) -> None:
    """pip's resolver takes the newest release for a requirement with an extra, and then misses it in the lock."""
    index = tmp_path / "index"
    index.mkdir()
    extra = ("Provides-Extra: toml",)
    locked = [
        _wheel(index, "measuring", "1.0", *extra),
        _wheel(index, "plugin", "1.0", "Requires-Dist: measuring[toml]>=1.0"),
    ]
    _wheel(index, "measuring", "2.0", *extra)
    checkout = _checkout(tmp_path / "checkout")
    lock = tmp_path / "some.lock"
    lock.write_text("\n".join(locked) + "\n")
    made = _make(checkout, lock, index)
    assert made.returncode == 0, made.stderr
    pip = [str(checkout / ".venv" / "bin" / "python"), "-m", "pip"]
    freeze = subprocess.run([*pip, "freeze"], capture_output=True, text=True, check=True)
    assert {"measuring==1.0", "plugin==1.0"} <= set(freeze.stdout.splitlines())

    subprocess.run([*pip, "uninstall", "--quiet", "--yes", "measuring"], check=True)
    lock.write_text(locked[1] + "\n")
    lacking = _make(checkout, lock, index)
    assert lacking.returncode == 1
    assert "some.lock does not fit together:\nplugin 1.0 requires measuring, which is not installed." in lacking.stderr
