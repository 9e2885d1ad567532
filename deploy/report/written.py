"""A report as Markdown, CSV or one HTML page without anything from outside. Pure."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from collections.abc import Callable, Mapping

from deploy.report.period_report import PeriodReport, as_json
from deploy.report.tables import ReportTable, headline, tables

STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
.scroll { overflow-x: auto }
table { border-collapse: collapse; margin: .5rem 0 }
th, td { text-align: left; padding: .2rem .8rem .2rem 0; border-bottom: 1px solid #8886; vertical-align: top }
td { overflow-wrap: anywhere; min-width: 4rem }
.headline { font-size: 1.25rem; font-weight: 600 }
"""


def markdown(made: PeriodReport) -> str:
    """For a ticket or a wiki."""
    parts = [f"# Report {_span(made)}", _cell(headline(made))]
    parts += [_markdown(table) for table in tables(made)]
    return "\n\n".join(parts) + "\n"


def _markdown(table: ReportTable) -> str:
    lines = [f"## {table.title}", ""]
    if table.rows:
        lines.append("| " + " | ".join(table.columns) + " |")
        lines.append("|" + " --- |" * len(table.columns))
        lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in table.rows]
    else:
        lines.append(table.empty)
    if table.notes:
        lines += ["", *(f"- {_cell(note)}" for note in table.notes)]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """A text from the bus may neither leave its cell nor be a tag, a link or an image."""
    text = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return text.replace("<", "&lt;").replace("[", "\\[")


def as_csv(made: PeriodReport) -> str:
    """All tables below each other: a line with the title, the columns, the rows, an empty line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("report", _span(made), headline(made)))
    for table in tables(made):
        writer.writerow(())
        writer.writerow((table.title,))
        writer.writerow(table.columns)
        writer.writerows([_inert(cell) for cell in row] for row in table.rows)
        writer.writerows((_inert(note),) for note in table.notes)
    return out.getvalue()


def _inert(text: str) -> str:
    """A spreadsheet must not read a text from the bus as a formula."""
    return "'" + text if text[:1] in ("=", "+", "@", "\t", "\r") or (text[:1] == "-" and len(text) > 1) else text


def page(made: PeriodReport) -> str:
    """One HTML file: no script, and nothing that is loaded."""
    body = [f"<h1>Report {html.escape(_span(made))}</h1>", f'<p class="headline">{html.escape(headline(made))}</p>']
    body += [_section(table) for table in tables(made)]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Wattscale report {html.escape(_span(made))}</title><style>{STYLE}</style></head>\n<body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def _section(table: ReportTable) -> str:
    parts = [f"<h2>{html.escape(table.title)}</h2>"]
    if table.rows:
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in table.columns)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
        )
        parts.append(f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>')
    else:
        parts.append(f"<p>{html.escape(table.empty)}</p>")
    if table.notes:
        parts.append("<ul>" + "".join(f"<li>{_with_commands(note)}</li>" for note in table.notes) + "</ul>")
    return "\n".join(parts)


def _with_commands(note: str) -> str:
    """The note as HTML; what stands between backticks is a command."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(note))


def _span(made: PeriodReport) -> str:
    return f"{made.period.since:%Y-%m-%d %H:%M:%S} to {made.period.until:%Y-%m-%d %H:%M:%S} UTC"


def text_json(made: PeriodReport) -> str:
    """The form that `wattscale report --check` reads."""
    return json.dumps(as_json(made), indent=2) + "\n"


FORMS: Mapping[str, Callable[[PeriodReport], str]] = {
    "html": page,
    "md": markdown,
    "csv": as_csv,
    "json": text_json,
}
"""By the ending of the file."""
