"""``power_curve.json`` as the loader reads it, the power plots, and a report that loads nothing."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from planner.adapters.measured_power import PowerCurveError, load_power_curves
from planner.adapters.power_priors import Phase, curve, gpu
from planner.adapters.profiles import ProfileError, load_profile
from planner.core.power.curve import speed
from planner.profiler.analysis.power_law import CapSpeed, CardLimits, PowerFit, fit_points
from planner.profiler.analysis.sweep import Point
from planner.profiler.results.power_curve_file import power_notes, write_power_curve
from planner.profiler.results.power_plots import write_power_plots
from planner.profiler.results.profile_files import write_profile
from planner.profiler.results.profile_report import ReportContent, report, write_report
from tests.unit.planner.profiler.rows import TARGETS, profiled

CARD = CardLimits(119, 200, 700)
HOSTILE = '<script>alert("x")</script>&\'"'


@pytest.fixture(scope="module")
def fits() -> list[PowerFit]:
    """Prefill has a curve; decode was held back by nothing."""
    true = curve(gpu("h200"), Phase.PREFILL)
    caps = (200, 300, 400, 500, 600, 700)
    prefill = [CapSpeed(Point(1, "prefill", 500, 1, cap), cap, speed(true, 1000 * cap), None) for cap in caps]
    decode = [CapSpeed(Point(1, "decode", 500, 4, cap), cap, 1.0, 180.0) for cap in caps]
    return [fit_points("prefill", prefill, CARD), fit_points("decode", decode, CARD)]


def test_what_is_written_is_what_is_loaded(tmp_path, fits):
    write_profile(tmp_path, profiled(), TARGETS, {"model": "demo"})
    write_power_curve(tmp_path, fits, "NVIDIA H200")
    read = load_profile(tmp_path)
    assert read.prefill_curve == fits[0].curve
    assert read.decode_curve is None
    content = json.loads((tmp_path / "power_curve.json").read_text())
    assert [fit.get("why") for fit in content["fits"]] == [None, "no cap held it back; the lowest was 200 W"]
    assert len(content["rows"]) == 12
    assert power_notes(fits) == (
        "no power curve for decode: no cap held it back; the lowest was 200 W; planners use the published one",
    )


def test_parameters_that_the_points_leave_open_are_named_wherever_they_stand(tmp_path):
    true = curve(gpu("h200"), Phase.PREFILL)
    caps = (200, 250, 300, 350, 400, 450, 500)
    speeds = [speed(true, 1000 * cap) * (1.02 if cap % 100 else 0.98) for cap in caps]
    points = [
        CapSpeed(Point(1, "decode", 500, 8, cap), cap, each / speeds[-1], None)
        for cap, each in zip(caps, speeds, strict=True)
    ]
    fit = fit_points("decode", points, CARD)
    assert fit.uncertain == ("p_s_watts", "p_u_watts", "alpha")
    (note,) = power_notes([fit])
    assert re.fullmatch(
        r"the power curve of decode, 8 in flight has uncertain parameters \(P_s \d+ \+- \d+ W, P_u \d+ \+- \? W, "
        r"alpha 0\.\d{3} \+- 0\.\d{3}\); its speeds are within \d\.\d% of those measured",
        note,
    )
    write_power_curve(tmp_path, [fit], "NVIDIA H200")
    (written,) = json.loads((tmp_path / "power_curve.json").read_text())["fits"]
    assert written["uncertain"] == list(fit.uncertain)
    assert written["margins"]["p_u_watts"] is None
    assert fit.margins is not None
    assert written["margins"]["p_s_watts"] == fit.margins.p_s_watts
    page = report(content([fit], []))
    assert re.search(r"<td>\d+ \+- \d+</td><td>\d+ \+- \?</td><td>0\.\d{3} \+- 0\.\d{3}</td>", page)


GOOD = {"p_s_watts": 1, "p_u_watts": 2, "alpha": 1, "idle_watts": 1, "min_watts": 1, "max_watts": 2, "useful_watts": 1}


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "needs an object 'curves' with prefill and decode"),
        ('{"curves": {"other": {}}}', "needs an object 'curves' with prefill and decode"),
        ('{"curves": {"prefill": {}}}', "a curve has p_s_watts, p_u_watts, alpha"),
        (json.dumps({"curves": {"prefill": {**GOOD, "p_s_watts": -1}}}), "p_s_watts is -1; it must be a number"),
        (json.dumps({"curves": {"prefill": {**GOOD, "p_u_watts": True}}}), "p_u_watts is True; it must be a number"),
        (json.dumps({"curves": {"prefill": {**GOOD, "alpha": 0}}}), "alpha must be above 0"),
        (json.dumps({"curves": {"decode": {**GOOD, "p_s_watts": 2}}}), "p_s_watts < p_u_watts <= max_watts"),
    ],
)
def test_a_broken_file_is_refused_by_name_and_never_half_used(tmp_path, content, line):
    write_profile(tmp_path, profiled(), TARGETS, {"model": "demo"})
    (tmp_path / "power_curve.json").write_text(content)
    with pytest.raises(PowerCurveError, match=re.escape(line)):
        load_power_curves(tmp_path)
    with pytest.raises(ProfileError, match=r"power_curve\.json: "):
        load_profile(tmp_path)


def test_the_power_plots_are_pictures(tmp_path, fits):
    files = write_power_plots(tmp_path, fits)
    assert [file.name for file in files] == ["power_speed.png", "power_residuals.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    assert write_power_plots(tmp_path, []) == ()


def content(fits: list[PowerFit], plots: list[Path]) -> ReportContent:
    source = {"model": HOSTILE, "backend": "vllm"}
    return ReportContent(profiled(watts=500.0, samples=20), TARGETS, fits, source, (HOSTILE,), plots)


def test_the_report_has_every_part_in_one_file(tmp_path, fits):
    plots = list(write_power_plots(tmp_path, fits))
    page = write_report(tmp_path, content(fits, plots)).read_text()
    for part in ("Suggested prefill TP:1", "Power curves", "Measured: prefill", "Measured: decode", "(few samples)"):
        assert part in page
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert [base64.b64decode(each) for each in pictures] == [file.read_bytes() for file in plots]
    assert "no cap held it back" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert "http" not in re.sub(r"data:image/png;base64,[^\"]+|http-equiv", "", page)


def test_every_text_of_the_report_is_escaped(fits):
    page = report(content(fits, []))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 4
