"""A device, a pipe, an endless line or a packed flood named as a file: one line, at once, in bounded memory."""

from __future__ import annotations

import gzip
import io
import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from deploy.yaml_text import read_yaml
from planner.adapters.text_lines import LONGEST_LINE_BYTES, TextFileError, text_lines
from tests.command_line import run
from tests.unit.deploy.cli.test_simulate import profile_folder, settings_file

ROOT = Path(__file__).parents[3]
MEMORY_BYTES = 2 << 30
HEADER = "timestamp_ms,input_length,output_length\n"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def bounded(*words: str) -> subprocess.CompletedProcess[str]:
    """A command as a process with little memory and little time."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.cli.main", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES)),
    )


def test_a_simulation_of_an_endless_device_is_refused_at_once() -> None:
    done = bounded("simulate", "--trace", "/dev/zero")
    assert done.returncode == 2
    assert done.stderr == "wattscale: /dev/zero: cannot be read: a device or socket, not a file\n"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "pipe", "/tmp"])
@pytest.mark.parametrize(
    "words",
    [
        ("simulate", "--trace"),
        ("plan-capacity", "--budget-watts", "9000", "--load"),
        ("up", "--trace"),
        ("planner", "check", "--config"),
        ("agent", "check", "--node", "n", "--settings"),
        ("agent", "pod-of", "--cgroup-file"),
        ("replay", "--journal"),
    ],
    ids=" ".join,
)
def test_of_files_on_the_command_line(words: tuple[str, ...], device: str, pipe: Path, tmp_path: Path) -> None:
    if words[0] == "replay":
        words = ("replay", "--config", str(settings_file(tmp_path, profile_folder(tmp_path))), *words[1:])
    done = run(*words, str(pipe) if device == "pipe" else device)
    assert done.code == 2
    assert "not a file" in done.one_line()


@pytest.mark.parametrize("option", ["--creds", "--nkey", "--token-file", "--tls-ca"])
def test_of_files_with_secrets(option: str, pipe: Path) -> None:
    done = run("status", "--nats-url", "nats://127.0.0.1:1", option, str(pipe))
    assert done.code in (2, 3)
    assert "a pipe, not a file" in done.one_line()


@pytest.mark.parametrize("packed", [False, True])
def test_a_line_has_a_longest_length(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "trace.csv"
    text = HEADER.encode() + b"1" * (LONGEST_LINE_BYTES + 1)
    path.write_bytes(gzip.compress(text) if packed else text)
    done = run("simulate", "--trace", str(path))
    assert done.code == 2
    assert f"trace.csv: line 2: longer than {LONGEST_LINE_BYTES} bytes" in done.one_line()


def test_a_packed_flood_of_short_lines_ends_at_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "flood.gz"
    path.write_bytes(gzip.compress(b"\n" * 5_000_000))
    with pytest.raises(TextFileError, match=r"line 1001: the text is longer than 1000 bytes"):
        list(text_lines(path, 1000))


def test_a_packed_profile_that_unpacks_to_a_flood_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("prefill_isl.npy", b"\0" * (65 << 20))
    (tmp_path / "prefill_raw_data.npz").write_bytes(packed.getvalue())
    done = run("simulate", "--profile", str(tmp_path))
    assert done.code == 2
    assert "unpacks to more than" in done.one_line()


def test_a_settings_file_has_a_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text("#" * (1 << 20) + "\ninterval_s: 5\n")
    done = run("planner", "check", "--config", str(path))
    assert done.code == 2
    assert "longer than 1048576 bytes" in done.one_line()


@pytest.mark.parametrize("words", [("planner", "check", "--config"), ("agent", "check", "--node", "n", "--settings")])
def test_a_key_that_is_given_twice_is_refused(words: tuple[str, ...], tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text("nats:\n  prefix: a\nnats:\n  prefix: b\n")
    done = run(*words, str(path))
    assert done.code == 2
    assert f"{path}: not YAML: 'nats' is given twice (line 3, column 1)" in done.one_line()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{a: 1, b: {c: 1, c: 2}}", "'c' is given twice (line 1, column 18)"),
        ("[1", "expected ',' or ']'"),
        ("=", "could not determine a constructor"),
        ("!!python/name:os", "could not determine a constructor"),
        ("&a [*a]", "unfold"),
        ("[" * 500, "nested"),
        ("2020-13-45", "month"),
        ("\n".join([f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'x'}]" for n in range(9)]), "unfold"),
    ],
)
def test_yaml_that_cannot_be_read_is_one_line(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        read_yaml(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_of_settings_is_read() -> None:
    assert read_yaml("") is None
    text = "base: &base {a: 1}\nmore: {<<: *base, b: [2, null, 3.5]}\n"
    assert read_yaml(text) == {"base": {"a": 1}, "more": {"a": 1, "b": [2, None, 3.5]}}
