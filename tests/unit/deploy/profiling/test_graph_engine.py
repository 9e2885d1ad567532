"""A DynamoGraphDeployment as the file of --config: what is taken from it, and what is refused by its path."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cli.errors import UsageError
from deploy.profiling.engine_config import engine_command, read_engine
from deploy.profiling.graph_engine import graph_engine
from deploy.profiling.graph_options import GraphError
from planner.profiler.requests.generated.deployment_sizing import size_deployment
from planner.profiler.requests.generated.graph_deployment import graph_deployment
from planner.profiler.requests.request_manifest import parse_request
from tests.command_line import wattscale
from tests.unit.planner.profiler.requests.request_examples import ALPHA, BETA
from tests.unit.planner.profiler.requests.test_generated_deployments import profile

MAIN = "spec.services.D.extraPodSpec.mainContainer"
MAIN_P = "spec.services.P.extraPodSpec.mainContainer"
EXAMPLES = Path(__file__).parents[4] / "deploy/kubernetes/examples"
COMMANDS = {
    "vllm": "vllm serve Qwen/Qwen3-0.6B --host 127.0.0.1 --port 7000 --tensor-parallel-size 1",
    "sglang": "python3 -m sglang.launch_server --model-path Qwen/Qwen3-0.6B --host 127.0.0.1 --port 7000 --tp-size 1 "
    "--enable-metrics --enable-cache-report",
    "trtllm": "trtllm-serve Qwen/Qwen3-0.6B --host 127.0.0.1 --port 7000 --tp_size 1",
}


def alpha(**main: Any) -> dict[str, Any]:
    """A graph of v1alpha1; ``main``: keys of both workers' main containers."""
    service = {
        "componentType": "worker",
        "replicas": 2,
        "resources": {"limits": {"gpu": "4"}},
        "extraPodSpec": {
            "mainContainer": {
                "image": "i",
                "command": ["python3", "-m", "dynamo.vllm"],
                "args": ["--model", "m"],
                **main,
            }
        },
    }
    services = {
        "Frontend": {"componentType": "frontend"},
        "P": {**copy.deepcopy(service), "subComponentType": "prefill"},
        "D": {**copy.deepcopy(service), "subComponentType": "decode"},
    }
    version = "nvidia.com/v1alpha1"
    return {"apiVersion": version, "kind": "DynamoGraphDeployment", "metadata": {}, "spec": {"services": services}}


def container(graph: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = graph["spec"]["services"][name]["extraPodSpec"]["mainContainer"]
    return found


@pytest.mark.parametrize("backend", ["vllm", "sglang", "trtllm"])
def test_the_examples_of_each_backend_give_its_own_engine(backend: str) -> None:
    given = read_engine(EXAMPLES / backend / "disagg_planner.yaml")
    assert (given.backend, given.tps, given.config.model) == (backend, (1,), "Qwen/Qwen3-0.6B")
    assert " ".join(engine_command(backend, given.config, ()).filled(1, 7000)) == COMMANDS[backend]


@pytest.mark.parametrize("backend", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize("form", [ALPHA, BETA])
def test_what_a_request_generates_is_read_again(form: dict[str, Any], backend: str) -> None:
    request = parse_request({**form, "spec": {**form["spec"], "backend": backend}})
    found = graph_engine(graph_deployment(request, size_deployment(profile(2, 4), request)), None)
    assert (found.backend, found.tps, found.model) == (backend, (2, 4), request.weights)


def test_engine_arguments_stay_and_what_makes_a_half_of_a_worker_goes() -> None:
    args = ["--model=m", "--tensor-parallel-size", 4, "--max-model-len", "8192", "--enable-prefix-caching"]
    args += ["--is-prefill-worker", "--kv-transfer-config", "{}", "--dyn-reasoning-parser", "qwen3"]
    found = graph_engine(alpha(args=args, env=[{"name": "A", "value": "1"}]), None)
    assert found.arguments == ("--max-model-len", "8192", "--enable-prefix-caching")
    assert (found.tps, dict(found.environment)) == ((4,), {"A": "1"})


def test_a_plain_command_of_a_shell_is_taken_apart_and_a_script_is_refused() -> None:
    shell = {"command": ["/bin/sh", "-c"], "args": ["exec python3 -m dynamo.vllm \\\n --model m --seed 3"]}
    assert graph_engine(alpha(**shell), None).arguments == ("--seed", "3")
    for script in ("a; python3 -m dynamo.vllm --model m", 'python3 -m dynamo.vllm --model "$M"'):
        with pytest.raises(GraphError, match=r"mainContainer\.args: a shell's script cannot be read"):
            graph_engine(alpha(command=["sh", "-c"], args=[script]), None)


def test_the_tp_size_is_that_of_the_arguments_and_gpus_beyond_it_are_named() -> None:
    graph = alpha()
    container(graph, "P")["args"] += ["--tp", "2"]
    found = graph_engine(graph, None)
    assert found.tps == (1, 2)
    unless = "is profiled, unless --tp names another"
    assert found.notes[0] == f"{MAIN_P}: its arguments say TP 2, and its limits 4 GPUs: TP 2 {unless}"
    assert (
        found.notes[1] == f"{MAIN}: its arguments name no TP size, which is TP 1, and its limits 4 GPUs: TP 1 {unless}"
    )


def test_of_trtllm_with_a_file_of_its_own_gpus_are_the_tp_size() -> None:
    args = ["--model", "m", "--extra-engine-args", "/e.yaml"]
    found = graph_engine(alpha(command=["python3", "-m", "dynamo.trtllm"], args=args), None)
    assert (found.tps, found.notes) == ((4,), ())


@pytest.mark.parametrize("option", ["--data-parallel-size", "--dp-size", "--dp", "-dp", "--pp-size", "--nnodes"])
def test_ranks_beside_those_of_one_tp_size_are_refused_and_a_single_one_is_nothing(option: str) -> None:
    single = ["--model", "m", "--tp", "4", option, "1", "--seed", "3"]
    assert graph_engine(alpha(args=single), None).arguments == ("--seed", "3")
    for words in ([option, "2"], [f"{option}=2"]):
        line = rf"^{MAIN_P}\.args: {option} 2: .* leave it out to profile one rank, or give --endpoint"
        with pytest.raises(GraphError, match=line):
            graph_engine(alpha(args=["--model", "m", *words]), None)


@pytest.mark.parametrize(
    "words", [["--enable-dp-attention"], ["--data-parallel-rank", "0"], ["-dpr", "1"], ["--data-parallel-hybrid-lb"]]
)
def test_other_options_of_data_parallelism_are_refused(words: list[str]) -> None:
    with pytest.raises(GraphError, match=rf"^{MAIN_P}\.args: {words[0]}.*leave it out"):
        graph_engine(alpha(args=["--model", "m", *words]), None)


def test_more_gpus_than_the_limits_give_are_refused() -> None:
    with pytest.raises(GraphError, match=rf"^{MAIN_P}\.args: TP 8, and its limits give it 4 GPUs;"):
        graph_engine(alpha(args=["--model", "m", "--tp", "8"]), None)
    inside = alpha(args=["--model", "m", "--tp", "2"], resources={"limits": {"nvidia.com/gpu": 1}})
    for service in inside["spec"]["services"].values():
        service.pop("resources", None)
    with pytest.raises(GraphError, match="TP 2, and its limits give it 1 GPU;"):
        graph_engine(inside, None)


def test_a_secret_of_the_cluster_is_to_be_set_here_and_the_run_says_so() -> None:
    graph = alpha(args=["--model", "m", "--tp", "4"], envFrom=[{"configMapRef": {"name": "switches"}}])
    graph["spec"]["services"]["D"]["envFromSecret"] = "hf-token-secret"
    found = graph_engine(graph, "decode")
    (note,) = found.notes
    assert note.startswith("the variables of hf-token-secret, switches are the cluster's and not known here: export ")


def test_a_key_in_the_arguments_is_left_out_and_another_secret_is_refused() -> None:
    for words in (["--api-key", "hunter2"], ["--api-key=hunter2"], ["--admin-api-key", "hunter2"]):
        found = graph_engine(alpha(args=["--model", "m", "--tp", "4", *words]), None)
        assert found.arguments == ()
    with pytest.raises(GraphError, match=rf"^{MAIN_P}\.args: --hf-token holds a secret") as refused:
        graph_engine(alpha(args=["--model", "m", "--hf-token", "hunter2"]), None)
    assert "hunter2" not in str(refused.value)


def test_variables_in_arguments_are_filled_in_as_the_kubelet_does() -> None:
    env = [{"name": "MODEL", "value": "m"}]
    assert graph_engine(alpha(args=["--model", "$(MODEL)", "--tp", "4"], env=env), None).model == "m"
    with pytest.raises(GraphError, match=rf"^{MAIN_P}\.args: \$\(OTHER\) has no plain value"):
        graph_engine(alpha(args=["--model", "$(OTHER)"], env=env), None)


def test_workers_whose_arguments_differ_need_a_choice() -> None:
    graph = alpha()
    container(graph, "P")["args"] += ["--max-num-seqs", "8"]
    with pytest.raises(GraphError, match=r"spec\.services\.D.*are none.*'--max-num-seqs 8'.*choose with --worker"):
        graph_engine(graph, None)
    assert graph_engine(graph, "prefill").arguments == ("--max-num-seqs", "8")
    assert graph_engine(graph, "decode").arguments == ()


def edited(path: str, value: Any) -> dict[str, Any]:
    graph = alpha()
    *above, last = path.split(".")
    current: Any = graph
    for key in above:
        current = current[key]
    current[last] = value
    return graph


@pytest.mark.parametrize(
    ("graph", "line"),
    [
        (edited("apiVersion", "nvidia.com/v9"), r"^apiVersion: 'nvidia.com/v9'"),
        (edited("sepc", {}), r"^sepc: unknown key"),
        (edited("spec.servces", {}), r"^spec\.servces: unknown key"),
        (edited("spec.services.D.replica", 1), r"^spec\.services\.D\.replica: unknown key"),
        (edited(f"{MAIN}.arg", []), rf"^{MAIN}\.arg: unknown key"),
        (edited(f"{MAIN}.args", "--model m"), rf"^{MAIN}\.args: not a list"),
        (edited(f"{MAIN}.args", []), rf"^{MAIN}\.args: no --model"),
        (edited(f"{MAIN}.args", ["m"]), rf"^{MAIN}\.args: 'm' belongs to no option"),
        (edited(f"{MAIN}.args", ["--model", "n"]), r"its model is n, and that of .* is m"),
        (edited(f"{MAIN}.args", ["--model", "m", "--tp", "x"]), r"--tp x: not a number of GPUs"),
        (edited(f"{MAIN}.command", ["serve"]), r"no backend"),
        (edited(f"{MAIN}.env", [{"name": "T", "valueFrom": {}}]), rf"^{MAIN}\.env\.0: T has no plain value"),
        (edited(f"{MAIN}.env", 5), rf"^{MAIN}\.env: not a list"),
        (edited(f"{MAIN}.env", {"A": "1"}), rf"^{MAIN}\.env: not a list"),
        (edited(MAIN, {"args": ["sh", "-c", "python3 -m dynamo.vllm --model 'm"]}), rf"^{MAIN}\.args: No closing quot"),
        (edited("spec.services.D.resources", ["gpu"]), r"^spec\.services\.D\.resources: missing, or not a mapping"),
        (edited("spec.services.D.resources", {"limits": [4]}), r"resources\.limits: missing, or not a mapping"),
        (edited("spec.services.D.multinode", {"nodeCount": 2}), r"^spec\.services\.D\.multinode"),
        (edited("spec.services.D.resources", {"limits": {"gpu": "0"}}), r"resources\.limits\.gpu: '0'"),
        (edited("spec.services.D.subComponentType", "prefill"), r"a second prefill worker"),
        (edited("spec.services.D.componentType", "frontend") | {"spec": {"services": {}}}, r"no prefill worker"),
        (edited("spec.backendFramework", "sglang"), r"runs vllm, and spec\.backendFramework is sglang"),
    ],
)
def test_a_mistake_is_refused_by_its_path(graph: dict[str, Any], line: str) -> None:
    with pytest.raises(GraphError, match=line) as raised:
        graph_engine(graph, None)
    assert "\n" not in str(raised.value)


def test_an_option_without_an_equal_in_trtllm_serve_is_refused_and_others_are_translated() -> None:
    words = ["--model-path", "m", "--max-num-tokens", "8192", "--extra-engine-args", "/e.yaml"]
    command = ["python3", "-m", "dynamo.trtllm"]
    found = graph_engine(alpha(command=command, args=words), None)
    assert found.arguments == ("--max_num_tokens", "8192", "--extra_llm_api_options", "/e.yaml")
    with pytest.raises(GraphError, match="--modality has no equal in trtllm-serve"):
        graph_engine(alpha(command=command, args=[*words, "--modality", "text"]), None)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--backend", "sglang"], "--backend sglang: the graph of --config"),
        (["--tp", "2", "--caps", "0"], "caps are whole numbers"),
    ],
)
async def test_options_are_stronger_than_the_graph_or_refused(tmp_path: Path, more: list[str], line: str) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text(yaml.safe_dump(alpha()))
    done = await wattscale("profile", "--config", str(file), "--output-dir", str(tmp_path / "out"), *more)
    assert done.code == 2
    assert line in done.err


async def test_notes_on_a_graph_are_shown_before_anything_is_measured(tmp_path: Path) -> None:
    file = tmp_path / "graph.yaml"
    file.write_text(yaml.safe_dump(alpha()))
    # GPUs that are not there end the run before an engine is started.
    done = await wattscale("profile", "--config", str(file), "--output-dir", str(tmp_path / "out"), "--gpus", "7")
    assert done.code == 2
    assert f"note: {MAIN_P}: its arguments name no TP size" in done.err


async def test_worker_goes_with_a_graph(tmp_path: Path) -> None:
    file = tmp_path / "engine.yaml"
    file.write_text("model: m\n")
    words = ("--backend", "vllm", "--config", str(file), "--worker", "decode", "--output-dir", str(tmp_path / "out"))
    done = await wattscale("profile", *words)
    assert (done.code, "--worker goes with a DynamoGraphDeployment" in done.err) == (2, True)
    assert read_engine(file).backend is None
    with pytest.raises(UsageError, match="--worker"):
        read_engine(file, "decode")
