"""The table of `wattscale verify` as text, as JSON and as JUnit XML. Pure."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

from bus_schemas.visible_text import visible
from deploy.cli.verify.verdicts import CheckLine, Group, Verdict


def counts(lines: Sequence[CheckLine]) -> dict[str, int]:
    """How many lines have each verdict."""
    return {verdict.value: sum(line.verdict is verdict for line in lines) for verdict in Verdict}


def as_text(lines: Sequence[CheckLine]) -> str:
    """One line for each check, by group, each remedy below its line, and the counts last."""
    width = max(len(line.name) for line in lines)
    rows = []
    for group in Group:
        own = [line for line in lines if line.group is group]
        rows += [group.value] if own else []
        for line in own:
            rows.append(f"  {line.verdict.value:<7} {line.name:<{width}}  {visible(line.detail)}")
            if line.remedy:
                rows.append(f"  {'':<7} {'':<{width}}  -> {visible(line.remedy)}")
    total = ", ".join(f"{count} {name}" for name, count in counts(lines).items() if count)
    return "\n".join([*rows, f"{len(lines)} checks: {total}"])


def as_json(lines: Sequence[CheckLine]) -> dict[str, Any]:
    """The counts, and every line as an object."""
    rows = [
        {
            "group": line.group.value,
            "check": line.name,
            "verdict": line.verdict.value,
            "detail": line.detail,
            "remedy": line.remedy,
        }
        for line in lines
    ]
    return {"counts": counts(lines), "checks": rows}


def as_junit(lines: Sequence[CheckLine], *, strict: bool = False) -> str:
    """A JUnit report: a suite for each group. A warning is a passed test with output; with ``strict``, a failure."""
    failing = (Verdict.FAIL, Verdict.WARN) if strict else (Verdict.FAIL,)
    root = ET.Element("testsuites", name="wattscale verify")
    for group in Group:
        own = [line for line in lines if line.group is group]
        if not own:
            continue
        suite = ET.SubElement(
            root,
            "testsuite",
            name=group.value,
            tests=str(len(own)),
            failures=str(sum(line.verdict in failing for line in own)),
            skipped=str(sum(line.verdict is Verdict.SKIPPED for line in own)),
            errors="0",
        )
        for line in own:
            _case(suite, line, failed=line.verdict in failing)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, line: CheckLine, *, failed: bool) -> None:
    case = ET.SubElement(suite, "testcase", classname=f"wattscale.verify.{line.group}", name=line.name)
    detail, remedy = visible(line.detail), visible(line.remedy)
    if failed:
        ET.SubElement(case, "failure", message=detail).text = remedy
    elif line.verdict is Verdict.SKIPPED:
        ET.SubElement(case, "skipped", message=detail)
    else:
        ET.SubElement(case, "system-out").text = f"{line.verdict}: {detail}" + (f"\n{remedy}" if remedy else "")
