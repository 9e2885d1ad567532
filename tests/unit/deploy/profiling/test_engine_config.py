"""The file of --config, and the commands that engines are started with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.cli.errors import UsageError
from deploy.profiling.engine_config import EngineConfig, engine_command, read_engine_config
from deploy.profiling.secret_words import secret_option

SGLANG = (
    "python3 -m sglang.launch_server --model-path org/model --host 127.0.0.1 --port 7000 --tp-size 4 "
    "--enable-metrics --enable-cache-report --dtype bfloat16"
)


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("vllm", "vllm serve org/model --host 127.0.0.1 --port 7000 --tensor-parallel-size 4 --dtype bfloat16"),
        ("sglang", SGLANG),
        ("trtllm", "trtllm-serve org/model --host 127.0.0.1 --port 7000 --tp_size 4 --dtype bfloat16"),
    ],
)
def test_each_backend_has_its_command(backend: str, words: str) -> None:
    config = EngineConfig(model="org/model", args=("--dtype", "bfloat16"))
    assert " ".join(engine_command(backend, config, ()).filled(4, 7000)) == words


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text("model: m\ncommand: [serve, '{port}']\nenv: {A: '1'}\nstarts_within_s: 60\n")
    command = engine_command("vllm", read_engine_config(file), ("GPU-a", "GPU-b"))
    assert command.filled(1, 5) == ["serve", "5"]
    assert (command.environment, command.gpus, command.starts_within_s) == ({"A": "1"}, ("GPU-a", "GPU-b"), 60)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "the file: Input should be"),
        ("args: [a]", "model: Field required; its keys are model, command, args, env, starts_within_s"),
        ("{model: m, modle: x}", "modle: Extra inputs are not permitted"),
        ("model: [", "not YAML"),
        ("model: m\nmodel: n", "model"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        read_engine_config(file)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("where", ["args", "command"])
@pytest.mark.parametrize(
    "words", [["--api-key", "hunter2"], ["--hf-token=hunter2"], ["--ssl-keyfile-password", "hunter2"]]
)
def test_a_secret_in_a_command_line_is_refused_and_not_repeated(tmp_path: Path, where: str, words: list[str]) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text(json.dumps({"model": "m", where: ["serve", *words, "{port}"]}))
    with pytest.raises(UsageError) as raised:
        read_engine_config(file)
    line = str(raised.value)
    assert f"{where}: {words[0].partition('=')[0]} holds a secret" in line
    assert "hunter2" not in line
    assert "\n" not in line


@pytest.mark.parametrize(
    "word", ["--max-num-batched-tokens", "--tokenizer", "--ssl-keyfile", "--itl-ms-per-token", "--eos-token"]
)
def test_other_options_hold_none(word: str) -> None:
    assert secret_option([word, "5"]) is None


def test_a_command_without_its_port_is_refused() -> None:
    with pytest.raises(UsageError, match=r"it must take its port from \{port\}"):
        engine_command("vllm", EngineConfig(model="m", command=("serve",)), ())
