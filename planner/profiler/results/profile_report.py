"""``report.html``: what a run found, in one file that loads nothing. Every text in it is escaped."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from planner.profiler.analysis.power_law import PowerFit
from planner.profiler.analysis.profiled import LEAST_POWER_SAMPLES, Profiled
from planner.profiler.analysis.recommendation import Targets, lines
from planner.profiler.analysis.tables import PointRow
from planner.profiler.results.power_curve_file import with_margin
from planner.profiler.results.profile_files import write_whole

FILE = "report.html"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #d8dee4; text-align: right; }
th:first-child, td:first-child { text-align: left; }
pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; white-space: pre-wrap; }
img { max-width: 100%; } .wide { overflow-x: auto; }
@media (prefers-color-scheme: dark) {
  body { background: #0d1117; color: #e6edf3; } pre { background: #161b22; } th, td { border-color: #30363d; }
  img { background: #fff; }
}
"""


@dataclass(frozen=True, slots=True)
class ReportContent:
    """What a report shows. ``source``: what was profiled, by name; ``notes``: lines about what is not settled."""

    profiled: Profiled
    targets: Targets
    fits: Sequence[PowerFit]
    source: Mapping[str, Any]
    notes: Sequence[str]
    plots: Sequence[Path]


def write_report(folder: Path, content: ReportContent) -> Path:
    """Write the file. Raises OSError."""
    return write_whole(folder / FILE, report(content).encode())


def report(content: ReportContent) -> str:
    """The report as HTML. Raises OSError where a plot cannot be read."""
    targets = content.targets
    title = f"Profile of {content.source.get('model', 'an engine')}"
    promise = (
        f"prompts of {targets.isl} and answers of {targets.osl} tokens, TTFT {targets.ttft_ms:g} ms, ITL "
        f"{targets.itl_ms:g} ms"
    )
    parts = [
        f"<h1>{escape(title)}</h1>",
        _table(("", ""), [*((name, str(value)) for name, value in content.source.items()), ("targets", promise)]),
        "<h2>Recommendation</h2>",
        f"<pre>{escape(chr(10).join(lines(content.profiled.recommendation, targets)))}</pre>",
    ]
    if content.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in content.notes)
        parts.append(f"<h2>Not settled</h2><ul>{items}</ul>")
    if content.plots:
        parts += ["<h2>Plots</h2>", *map(_plot, content.plots)]
    if content.fits:
        parts += ["<h2>Power curves</h2>", _fits(content.fits)]
    for phase, time in (("prefill", "TTFT (ms)"), ("decode", "ITL (ms)")):
        of_phase = [row for row in content.profiled.every_row if row.point.phase == phase]
        parts += [f"<h2>Measured: {phase}</h2>", _rows(of_phase, time)]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _plot(file: Path) -> str:
    data = base64.b64encode(file.read_bytes()).decode()
    return f'<p><img alt="{escape(file.stem.replace("_", " "))}" src="data:image/png;base64,{data}"></p>'


def _fits(fits: Sequence[PowerFit]) -> str:
    rows: list[tuple[str, ...]] = []
    for fit in fits:
        if fit.curve is None or fit.error is None or fit.worst is None:
            rows.append((fit.phase, fit.batches, "", "", "", "", "", fit.why))
            continue
        law = [with_margin(fit, name) for name in fit.parameters]
        rows.append((fit.phase, fit.batches, *law, f"{fit.error:.2%}", f"{fit.worst:.2%}", ""))
    head = ("phase", "in flight", "P_s (W)", "P_u (W)", "alpha", "error (rms)", "worst", "")
    return _table(head, rows)


def _rows(table: Iterable[PointRow], time: str) -> str:
    head = ("TP", "cap (W)", "isl", "in flight", time, "95 % interval", "tokens/s/GPU", "draw (W/GPU)", "tokens/J")
    return _table(head, [_row(row) for row in table])


def _row(row: PointRow) -> tuple[str, ...]:
    point, width = row.point, row.time.half_width
    draw = "" if row.watts is None else f"{row.watts / point.tp:.0f}"
    few = " (few samples)" if row.watts is not None and row.power_samples < LEAST_POWER_SAMPLES else ""
    return (
        str(point.tp),
        "" if point.cap_watts is None else f"{point.cap_watts:g}",
        str(point.isl),
        str(point.in_flight),
        f"{row.time.value:.2f}",
        "" if width is None else f"±{width:.1%}",
        f"{row.tokens_per_s_per_gpu:.1f}",
        draw + few,
        "" if row.tokens_per_joule is None else f"{row.tokens_per_joule:.3f}",
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(each)}</th>" for each in head) if any(head) else ""
    body = "".join("<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
