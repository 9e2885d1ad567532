"""`wattscale plan-capacity` as a command: the answer first, its table, JSON and plot, and one line for bad input."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from deploy.cli.main import main
from planner.sim.capacity.frontier import CapacityPoint, pareto_frontier
from tests.unit.deploy.cli.test_simulate import profile_folder

HEADER = "timestamp_ms,input_length,output_length"


def command(folder: Path) -> list[str]:
    """A load of two minutes that a handful of GPUs of a tiny profile serve; a run takes a tenth of a second."""
    trace = folder / "load.csv"
    trace.write_text("\n".join([HEADER, *(f"{200 * n},{2000 + 500 * (n % 5)},60" for n in range(600))]))
    profile = profile_folder(folder)
    load = ["--load", str(trace), "--profile", str(profile), "--startup-s", "5", "--processes", "1"]
    return ["plan-capacity", *load, "--budget-watts", "7000", "--interval-s", "10"]


def test_the_answer_comes_first_then_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = tmp_path / "capacity.svg"
    assert main([*command(tmp_path), "--points", "12", "--svg", str(plot), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    answer, points = found["answer"], [CapacityPoint(**point) for point in found["points"]]
    smallest = answer["smallest"]
    assert len(points) <= 12
    assert smallest["good_share"] >= 0.95
    assert smallest["watts"] <= 7000
    assert answer["exact"]
    assert answer["fewer"] is None or answer["fewer"]["good_share"] < 0.95
    assert answer["sentences"][0].startswith(f"{smallest['gpus']} GPUs and {smallest['watts']} W serve this load with ")
    assert [CapacityPoint(**point) for point in found["frontier"]] == list(pareto_frontier(points))
    assert all(point.peak_watts <= 1.02 * point.watts for point in points), "the budget held in every run"
    assert len(ElementTree.parse(plot).getroot().findall("{http://www.w3.org/2000/svg}circle")) == len(points)


def test_a_promise_that_cannot_be_kept_says_so_and_is_exit_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(tmp_path), "--max-gpus", "2", "--points", "2", "--good-percent", "99.9"]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("Nothing measured within 7000 W serves 99.9 % of this load in time: the best are 2 GPUs")
    assert told[2].split()[:3] == ["GPUs", "watts", "good"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--load", "/nowhere.csv"], "/nowhere.csv: cannot be read: No such file"),
        (["--profile", "/nowhere"], "no such folder"),
        (["--budget-watts", "300"], "--budget-watts 300: a worker of each phase takes 2 GPUs, which cannot be capped"),
        (["--budget-watts", "0"], "--budget-watts: must be a number above 0"),
        (["--max-gpus", "1"], "--max-gpus 1: a worker of each phase takes 2 GPUs"),
        (["--points", "0"], "--points: must be a whole number from 1"),
        (["--good-percent", "101"], "--good-percent: must be a number above 0 and at most 100"),
        (["--policy", "nonsense"], "--policy: no policy is called 'nonsense'"),
        (["--policy", "static:2p1d"], "--policy static: its fleet has one size"),
        (["--svg", "/nowhere/plot.svg"], "--svg /nowhere/plot.svg: no such folder: /nowhere"),
        (["--svg", "/tmp"], "--svg /tmp: a folder; name a file in it"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(tmp_path), *options]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.count("\n") == 1


def test_a_budget_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan-capacity"]) == 2
    assert "the following arguments are required: --budget-watts" in capsys.readouterr().err


def test_a_terminal_sees_the_runs_and_the_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    quiet = [*command(tmp_path), "--max-gpus", "3", "--points", "2"]
    main(quiet)
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    main(quiet)
    told = capsys.readouterr().err
    assert "2/2" in told
    assert "left, or less" in told
