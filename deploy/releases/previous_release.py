"""What the previous release sent, was set by and was installed with, taken by this one: `deploy/release --check`.

The fixtures lie in the tests (tests/contract/previous/release), as the pinned Helm does; a checkout has both.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from bus_schemas import codec
from deploy.compose import agent_settings, planner_settings
from deploy.compose.settings_layers import SettingsError
from deploy.releases.child_command import ReleaseError, output_of
from deploy.yaml_text import read_yaml

PREVIOUS = "tests/contract/previous/release"
CHART = "deploy/helm/wattscale"


def taken_messages(root: Path) -> int:
    """How many of its recorded messages are read. Raises ReleaseError with the first that is not."""
    file = f"{PREVIOUS}/messages.jsonl"
    lines = _text(root, file).splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            one = json.loads(line)
            codec.check_headers(codec.decode(json.dumps(one["body"]).encode()), one["headers"])
        except (codec.UndecodableError, ValueError, LookupError, TypeError) as error:
            text = f"{file} line {number}: the previous release sent it, and it is not read: {error}"
            raise ReleaseError(text) from error
    if not lines:
        raise ReleaseError(f"{file}: holds no messages; tests/contract/previous/record_release.py makes it")
    return len(lines)


def taken_settings(root: Path) -> None:
    """Raises ReleaseError with the first setting of its planner or agent that is not known any more."""
    for name in ("planner", "agent"):
        file = f"{PREVIOUS}/{name}.yaml"
        _text(root, file)
        try:
            if name == "planner":
                planner_settings.load(root / file, environ={})
            else:
                agent_settings.load(root / file, {}, {})
        except SettingsError as error:
            raise ReleaseError(f"{file}: settings of the previous release are refused: {error.problems[0]}") from error


def taken_values(root: Path, helm: Path) -> list[str]:
    """The cases of its chart whose values this chart takes, with what upgrade-values.yaml adds to them.

    Raises ReleaseError with what Helm said of the first one that it does not take.
    """
    files = sorted((root / PREVIOUS / "values").glob("*-values.yaml"))
    if not files:
        raise ReleaseError(f"{PREVIOUS}/values: holds no values; tests/contract/previous/record_release.py makes it")
    needed_file = f"{PREVIOUS}/upgrade-values.yaml"
    try:
        needed = read_yaml(_text(root, needed_file))
    except ValueError as error:
        raise ReleaseError(f"{needed_file}: {error}") from error
    cases = [file.name.removesuffix("-values.yaml") for file in files]
    with tempfile.TemporaryDirectory(prefix="wattscale-previous-") as scratch:
        added = Path(scratch) / "added.yaml"
        for case, file in zip(cases, files, strict=True):
            added.write_text(json.dumps(needed.get(case, {})), encoding="utf-8")
            words: list[str | Path] = [helm, "template", "w", root / CHART, "--values", file, "--values", added]
            output_of(words, root, f"{CHART} refuses {file.name} of the previous release")
    return cases


def _text(root: Path, file: str) -> str:
    try:
        return (root / file).read_text(encoding="utf-8")
    except OSError as error:
        raise ReleaseError(f"{file}: {error.strerror}; tests/contract/previous/record_release.py makes it") from error
