"""Reading traces: both forms, plain and gzip; and one clear line for everything that is wrong."""

from __future__ import annotations

import gzip
import itertools
import statistics
from pathlib import Path

import pytest

from planner.adapters.traces import TraceError, read_trace
from planner.sim.workload.generated import generated
from tests.shared_data import shared

CSV = "timestamp_ms,input_length,output_length\n0,100,10\n1500,200,20\n1500,300,30\n"
JSONL = (
    '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'
    '{"timestamp": 2500.5, "input_length": 700, "output_length": 6, "hash_ids": [1, 3]}\n'
)


def written(folder: Path, text: str, *, zipped: bool = False) -> Path:
    path = folder / "trace"
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    return path


@pytest.mark.parametrize("zipped", [False, True])
def test_csv(tmp_path: Path, zipped: bool) -> None:
    trace = read_trace(written(tmp_path, CSV, zipped=zipped))
    assert [tuple(r)[:3] for r in trace] == [(0.0, 100, 10), (1.5, 200, 20), (1.5, 300, 30)]
    assert trace[1] == (1.5, 200, 20, ())
    assert len(trace) == 3


@pytest.mark.parametrize("zipped", [False, True])
def test_jsonl_with_hashes(tmp_path: Path, zipped: bool) -> None:
    trace = read_trace(written(tmp_path, JSONL, zipped=zipped))
    assert trace[1] == (2.5005, 700, 6, (1, 3))
    assert trace.duration_s == 2.5005


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "empty"),
        ("timestamp_ms,input_length,output_length\n", 2, "no request"),
        ("a,b,c\n1,2,3\n", 1, "neither JSON nor a CSV header"),
        (CSV + "1400,1,1\n", 5, "unsorted"),
        (CSV + "1600,1\n", 5, "2 columns"),
        (CSV + "x,1,1\n", 5, "timestamp_ms must be a number"),
        (CSV + "nan,1,1\n", 5, "timestamp"),
        (CSV + "1600,-1,1\n", 5, "at least 1 token"),
        (CSV + "1600,1.5,1\n", 5, "input_length must be a whole number"),
        (JSONL + '{"timestamp": 3000, "input_length": 5}\n', 3, "output_length is missing"),
        (JSONL + "{broken\n", 3, "not JSON"),
        (JSONL + "[1]\n", 3, "object"),
        (JSONL + '{"timestamp": 1, "input_length": 5, "output_length": 5}\n', 3, "unsorted"),
    ],
)
def test_what_is_wrong_is_reported_with_its_line(tmp_path: Path, text: str, line: int, reason: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(TraceError) as caught:
        read_trace(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: line {line}: ")
    assert reason in message
    assert "\n" not in message


def test_a_missing_file_and_a_broken_gzip_are_one_line_too(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        read_trace(tmp_path / "none.csv")
    path = written(tmp_path, CSV, zipped=True)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(TraceError, match="broken gzip"):
        read_trace(path)


def test_faster_and_shorter(tmp_path: Path) -> None:
    trace = read_trace(written(tmp_path, CSV))
    assert list(trace.at_rate(3.0).t_s) == pytest.approx([0.0, 0.5, 0.5])
    assert [r.isl for r in trace.between(1.0, 2.0)] == [200, 300]
    assert trace.between(1.0, 2.0)[0].t_s == 0.5


def test_a_generated_workload_has_its_rate_its_quantiles_and_its_seed() -> None:
    requests = list(itertools.islice(generated(3, requests_per_s=10.0, wave=0.0), 20_000))
    assert len(requests) / requests[-1].t_s == pytest.approx(10.0, rel=0.05)
    assert statistics.median(r.isl for r in requests) == pytest.approx(1020, rel=0.05)
    assert statistics.median(r.osl for r in requests) == pytest.approx(129, rel=0.05)
    gaps = [b.t_s - a.t_s for a, b in itertools.pairwise(requests)]
    assert statistics.variance(gaps) / statistics.mean(gaps) ** 2 == pytest.approx(1.2, rel=0.1)
    assert list(itertools.islice(generated(3, requests_per_s=10.0, wave=0.0), 20_000)) == requests


def test_the_wave_of_a_generated_workload() -> None:
    requests = list(itertools.islice(generated(1, requests_per_s=5.0, wave=0.5, wave_s=1000.0), 5000))
    rising = sum(1 for r in requests if r.t_s % 1000 < 500)
    assert rising / len(requests) == pytest.approx(0.5 + 0.5 / 3.14159, abs=0.04)


@pytest.mark.parametrize(
    ("name", "count"),
    [("azure2023_conv.csv.gz", 19_366), ("mooncake_fast25_conversation.jsonl.gz", 12_031)],
)
def test_real_traces(name: str, count: int) -> None:
    trace = read_trace(shared(f"traces/{name}"))
    assert len(trace) == count
    assert trace.duration_s > 3000
