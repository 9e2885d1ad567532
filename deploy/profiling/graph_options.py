"""A worker's command as words, and what of its options an engine that is started alone takes. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deploy.profiling.secret_words import holds_secret

MODEL_FLAGS = frozenset({"--model", "--model-path"})
TP_FLAGS = frozenset({"--tensor-parallel-size", "-tp", "--tp", "--tp-size"})
RANKS = frozenset(
    {
        *("--data-parallel-size", "--data-parallel-size-local", "-dp", "-dpl", "--dp", "--dp-size"),
        *("--pipeline-parallel-size", "-pp", "--pp", "--pp-size", "--nnodes"),
    }
)
"""Each multiplies the GPUs of an engine beyond its TP size; 1 is as if it were not there."""
DATA_PARALLEL = re.compile(r"--data-parallel-|--enable-dp-|-dp[a-z]")
KEYS = frozenset({"--api-key", "--admin-api-key"})
"""Who may ask the engine: one that is started here is asked by its profiler only."""
HALF = {
    "--disaggregation-mode": 1,
    "--disaggregation-transfer-backend": 1,
    "--disaggregation-bootstrap-port": 1,
    "--disaggregation-strategy": 1,
    "--kv-transfer-config": 1,
    "--kv-events-config": 1,
    "--connector": 1,
    "--is-prefill-worker": 0,
    "--is-decode-worker": 0,
    "--publish-events-and-metrics": 0,
    "--skip-tokenizer-init": 0,
    "--enable-metrics": 0,
    "--host": 1,
    "--port": 1,
    "--endpoint": 1,
    "--store-kv": 1,
    "--request-plane": 1,
    "--event-plane": 1,
}
"""What ties a worker to its other half or to Dynamo, or is this profiler's own, and how many values follow."""
TRTLLM_FILE = "--extra-engine-args"
TRTLLM = {
    TRTLLM_FILE: "--extra_llm_api_options",
    "--max-num-tokens": "--max_num_tokens",
    "--max-batch-size": "--max_batch_size",
    "--max-seq-len": "--max_seq_len",
    "--max-beam-width": "--max_beam_width",
    "--expert-parallel-size": "--ep_size",
    "--free-gpu-memory-fraction": "--kv_cache_free_gpu_memory_fraction",
}
"""Dynamo's names of options with one value, and those of ``trtllm-serve``."""
TRTLLM_LEFT_OUT = frozenset({"--served-model-name"})
"""``trtllm-serve`` serves a model under its own name only."""
SHELLS = ("sh", "bash")
SHELL_WORDS = re.compile(r"[;&|<>`$()]|\n")
VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


class GraphError(ValueError):
    """A graph that no engine can be started from. The message is one line, which begins with a path."""


@dataclass(frozen=True, slots=True)
class WorkerArguments:
    """What an engine that is started alone takes. ``tp``: None where no option names it. ``has_file``: trtllm's own."""

    model: str | None
    tp: int | None
    kept: tuple[str, ...]
    has_file: bool


def engine_options(words: Sequence[str], backend: str, where: str) -> WorkerArguments:
    """The model, the TP size, and the other options. Raises GraphError."""
    model: str | None = None
    tp: int | None = None
    kept: list[str] = []
    for name, values in _grouped(words, where):
        if name in MODEL_FLAGS:
            model = _one(name, values, where)
        elif name in TP_FLAGS:
            tp = _gpus_of(name, values, where)
        elif not _left_out(name, values, where):
            kept += [name, *values] if backend != "trtllm" else _of_trtllm(name, values, where)
    return WorkerArguments(model, tp, tuple(kept), TRTLLM[TRTLLM_FILE] in kept)


def _left_out(name: str, values: Sequence[str], where: str) -> bool:
    """Whether an option concerns the worker and not its engine. Raises GraphError for one that no engine gets here."""
    if name in RANKS or DATA_PARALLEL.match(name):
        _single_rank(name, values, where)
        return True
    if name in HALF:
        if len(values) != HALF[name]:
            raise GraphError(f"{where}.args: {name} takes {HALF[name]} values, and has {len(values)}")
        return True
    if name in KEYS:
        return True
    if holds_secret(name) and values:
        raise GraphError(
            f"{where}.args: {name} holds a secret, which every user of this machine could read: leave it out here, "
            "and export it as a variable that the engine knows (HF_TOKEN) before this command"
        )
    return name.startswith("--dyn-")


def _of_trtllm(name: str, values: Sequence[str], where: str) -> list[str]:
    """An option under its name in ``trtllm-serve``."""
    if name in TRTLLM:
        return [TRTLLM[name], _one(name, values, where)]
    if name == "--trust-remote-code":
        return ["--trust_remote_code"]
    if name in TRTLLM_LEFT_OUT:
        return []
    raise GraphError(f"{where}.args: {name} has no equal in trtllm-serve; known: {', '.join(TRTLLM)}")


def _single_rank(name: str, values: Sequence[str], where: str) -> None:
    """Raises GraphError for an engine of more GPUs than its TP size."""
    if name in RANKS and values == ["1"]:
        return
    raise GraphError(
        f"{where}.args: {' '.join((name, *values))}: an engine is profiled on as many GPUs as its TP size, without "
        "ranks beside them; leave it out to profile one rank, or give --endpoint of such an engine and its GPUs as --tp"
    )


def command_words(container: Mapping[str, Any], environment: Mapping[str, str], where: str) -> list[str]:
    """Command and arguments as one list; those of ``sh -c`` are taken apart where it is one plain command."""
    words: list[str] = []
    for name in ("command", "args"):
        given = container.get(name, [])
        if not isinstance(given, list) or not all(isinstance(one, (str, int, float)) for one in given):
            raise GraphError(f"{where}.{name}: not a list of words")
        words += [_filled(str(one), environment, f"{where}.{name}") for one in given]
    if len(words) >= 3 and words[0].rsplit("/", 1)[-1] in SHELLS and words[1] == "-c":
        text = words[2].strip().replace("\\\n", " ")
        if len(words) > 3 or SHELL_WORDS.search(text):
            raise GraphError(f"{where}.args: a shell's script cannot be read; write the command as a list of words")
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise GraphError(f"{where}.args: {error}") from None
        return words[1:] if words[:1] == ["exec"] else words
    return words


def _filled(word: str, environment: Mapping[str, str], where: str) -> str:
    """The word with ``$(NAME)`` filled in, as the kubelet does."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in environment:
            raise GraphError(f"{where}: $({name}) has no plain value; write the value here instead")
        return environment[name]

    return VARIABLE.sub(value, word)


def _gpus_of(name: str, values: Sequence[str], where: str) -> int:
    text = _one(name, values, where)
    if not re.fullmatch(r"[1-9]\d{0,3}", text):
        raise GraphError(f"{where}.args: {name} {text}: not a number of GPUs")
    return int(text)


def _grouped(words: Sequence[str], where: str) -> Iterable[tuple[str, list[str]]]:
    """Options with the values that follow; ``--name=value`` is two words."""
    current: tuple[str, list[str]] | None = None
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            if current is not None:
                yield current
            name, equals, value = word.partition("=")
            current = (name, [value] if equals else [])
        elif current is None:
            raise GraphError(f"{where}.args: {word!r} belongs to no option")
        else:
            current[1].append(word)
    if current is not None:
        yield current


def _one(name: str, values: Sequence[str], where: str) -> str:
    if len(values) != 1:
        raise GraphError(f"{where}.args: {name} takes one value, and has {len(values)}")
    return values[0]
