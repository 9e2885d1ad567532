"""The report of a batch of runs as one HTML page: tables, charts, reasons. Opens without a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from bus_schemas.visible_text import visible
from planner.sim.evaluation.misses import CAUSE_WORDS
from planner.sim.evaluation.run_batch import Result
from planner.sim.evaluation.svg_chart import ChartLine, chart
from planner.sim.workload.scenario import Scenario

MOST_CHANGES = 200
MOST_COMPARED = 7
STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:900px;color:#111827;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2.2rem;border-top:1px solid #e5e7eb;padding-top:1rem}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;margin:.6rem 0}
th,td{padding:.25rem .5rem;text-align:right;border-bottom:1px solid #e5e7eb;font-size:13px}
th:first-child,td:first-child{text-align:left}th{color:#4b5563;font-weight:600}
.wide{overflow-x:auto}svg{width:100%;height:auto;display:block;margin:.4rem 0}
.t{font-size:13px;font-weight:600}.u{font-weight:400;fill:#6b7280}.a{font-size:11px;fill:#6b7280}
.g{stroke:#e5e7eb}.l{font-size:12px}td.s{text-align:left;color:#374151}details{margin:.6rem 0}
"""

COLUMN_WORDS = {
    "policy": "who decides",
    "good %": "share of requests within both targets",
    "p95 TTFT ms": "time to first token that 95 % of the requests stay below",
    "p95 ITL ms": "mean time between tokens that 95 % of the requests stay below",
    "GPU-h": "hours of GPUs that workers hold",
    "energy MJ": "energy of all GPUs, idle ones included",
    "J/good token": "energy per output token of requests within both targets",
    "peak W": "highest mean draw of all GPUs in a window",
    "over budget Ws": "watts above the budget times their seconds; 0 where it was kept or there is none",
    "comply s": "longest time to get below a lowered budget; - without a cut",
    "changes/h": "changes of the replica count an hour, by pool in the order of their names",
}
COLUMNS = tuple(COLUMN_WORDS)
OTHER_COLUMN_WORDS = {
    "reason": "why requests missed a target (below), or why a policy changed replicas (in its own terms)",
    "requests": "requests with this reason",
    "of all": "their share of all requests",
    "changes": "changes of a replica count with this reason",
    "when": "minutes of load",
    "pool": "the workers of one role",
    "replicas": "wanted before and after the change",
    "in words": "the policy's own sentence",
}


def score_row(result: Result) -> tuple[str, ...]:
    """One run's scores as text, in the order of ``COLUMNS``."""
    s = result.scores
    per_token = s.joules_per_good_output_token
    return (
        s.policy,
        f"{100 * s.good_share:.2f}",
        f"{s.ttft_ms_p95:.0f}",
        f"{s.itl_ms_p95:.1f}",
        f"{s.gpu_hours:.2f}",
        f"{s.energy_joules / 1e6:.2f}",
        "-" if per_token is None else f"{per_token:.3f}",
        f"{s.peak_watts:.0f}",
        f"{s.violation_watt_seconds:.0f}",
        "-" if s.comply_s is None else f"{s.comply_s:.0f}",
        " ".join(f"{rate:.1f}" for rate in s.changes_per_hour.values()) or "0",
    )


def html(title: str, facts: Mapping[str, str], scenario: Scenario, results: Sequence[Result]) -> str:
    """The report as an HTML document."""
    body = [f"<h1>{escape(title)}</h1>", table(("", ""), facts.items(), words=True)]
    body.append(table(COLUMNS, map(score_row, results)))
    meanings = table(("", ""), (COLUMN_WORDS | OTHER_COLUMN_WORDS | _cause_words()).items(), words=True)
    body.append(f"<details><summary>What the columns and the reasons of misses mean</summary>{meanings}</details>")
    if len(results) > 1:
        body += _compared(scenario, results)
    body += [_section(scenario, result) for result in results]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, words: bool = False) -> str:
    """An HTML table; ``words``: its cells are text, not numbers."""
    head = "".join(f"<th>{escape(visible(name))}</th>" for name in columns) if any(columns) else ""
    kind = ' class="s"' if words else ""
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td{kind}>{escape(visible(cell))}</td>" for cell in rest)
        lines.append(f"<tr><td>{escape(visible(first))}</td>{cells}</tr>")
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'


def _cause_words() -> dict[str, str]:
    return {cause.value: words for cause, words in CAUSE_WORDS.items()}


def _compared(scenario: Scenario, results: Sequence[Result]) -> Iterable[str]:
    """Every policy in the same chart; the budget is that of the first."""
    shown, end_s = results[:MOST_COMPARED], scenario.end_s
    more = "" if len(shown) == len(results) else f" (the first {len(shown)} of {len(results)})"
    yield f"<h2>Policies compared{more}</h2>"
    lines = [
        ChartLine(r.scores.policy, [(row.t_s, float(sum(row.ready.values()))) for row in r.rows], steps=True)
        for r in shown
    ]
    yield chart("Workers that serve", "workers", lines, end_s)
    for name, seen, target_ms in (
        ("TTFT", [result.ttft_ms for result in shown], scenario.ttft_ms),
        ("ITL", [result.itl_ms for result in shown], scenario.itl_ms),
    ):
        lines = [ChartLine(result.scores.policy, points) for result, points in zip(shown, seen, strict=True)]
        lines.append(ChartLine("target", [(0.0, target_ms), (end_s, target_ms)], dashed=True))
        yield chart(name, "ms, p95 by minute", lines, end_s, most=4 * target_ms)
    lines = [ChartLine(result.scores.policy, [(row.t_s, row.watts) for row in result.rows]) for result in shown]
    yield chart("Power drawn by all GPUs", "W", [*lines, *_budget(shown[0])], end_s)


def _budget(result: Result) -> list[ChartLine]:
    points = [(row.t_s, row.budget_watts) for row in result.rows if row.budget_watts is not None]
    return [ChartLine("budget", [(0.0, points[0][1]), *points], dashed=True, steps=True)] if points else []


def _section(scenario: Scenario, result: Result) -> str:
    parts = [f"<h2>{escape(result.scores.policy)}</h2>", *_charts(scenario, result)]
    if result.scores.misses:
        rows = [(name, str(count), f"{count / result.scores.requests:.2%}") for name, count in _misses(result)]
        parts += ["<h3>Why requests missed their targets</h3>", table(("reason", "requests", "of all"), rows)]
    reasons = Counter(change.reason for change in result.changes)
    if reasons:
        reason_rows = [(name or "-", str(count)) for name, count in reasons.most_common()]
        parts += ["<h3>Why replicas changed</h3>", table(("reason", "changes"), reason_rows), _changes(result)]
    return "".join(parts)


def _misses(result: Result) -> Iterable[tuple[str, int]]:
    return result.scores.misses.items()


def _changes(result: Result) -> str:
    rows = [
        (f"{c.t_s / 60:.1f} min", c.pool, f"{c.before} to {c.after}", c.reason, c.sentence)
        for c in result.changes[:MOST_CHANGES]
    ]
    title = f"The first {len(rows)} of {len(result.changes)} changes"
    rows_shown = table(("when", "pool", "replicas", "reason", "in words"), rows, words=True)
    return f"<details><summary>{title}</summary>{rows_shown}</details>"


def _charts(scenario: Scenario, result: Result) -> Iterable[str]:
    end_s, rows = scenario.end_s, result.rows
    if not rows:
        return
    gap_s = rows[1].t_s - rows[0].t_s if len(rows) > 1 else rows[0].t_s
    load = ChartLine("requests", [(row.t_s, row.arrived / gap_s) for row in rows])
    yield chart("Load", "requests/s", [load], end_s)
    replicas = [
        ChartLine(name, [(row.t_s, float(row.ready[name])) for row in rows], steps=True) for name in rows[0].ready
    ]
    yield chart("Replicas that serve", "workers", replicas, end_s)
    queued = [ChartLine(name, [(row.t_s, float(row.queued[name])) for row in rows]) for name in rows[0].queued]
    yield chart("Requests that wait", "requests", queued, end_s)
    targets = (("TTFT", result.ttft_ms, scenario.ttft_ms), ("ITL", result.itl_ms, scenario.itl_ms))
    for name, seen, target_ms in targets:
        lines = [
            ChartLine("p95 by minute", seen),
            ChartLine("target", [(0.0, target_ms), (end_s, target_ms)], dashed=True),
        ]
        yield chart(name, "ms", lines, end_s, most=4 * target_ms)
    watts = [
        ChartLine("drawn", [(r.t_s, r.watts) for r in rows]),
        ChartLine("caps", [(r.t_s, r.caps_watts) for r in rows]),
    ]
    yield chart("Power of all GPUs", "W", [*watts, *_budget(result)], end_s)
