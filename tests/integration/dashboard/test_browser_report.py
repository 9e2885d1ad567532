"""The HTML form of `wattscale report` in a real browser, from a file, without a network.

With WATTSCALE_WRITE_SCREENSHOT set, the picture of the README is made anew beside this file.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.report.period_report import report
from deploy.report.usage import Prices
from deploy.report.written import page as html
from tests.doubles.browser import browser_page
from tests.integration.dashboard.test_browser import HERE, shown
from tests.unit.deploy.report.messages import HOUR, Journal


def hour() -> Journal:
    """A site that was cut once and complied."""
    journal = Journal()
    journal.caps(10, "a", 600, 700)
    journal.in_force(11, "a", 600)
    journal.budget(1200, 500, reason="grid", issued_by="anna on the dashboard")
    journal.caps(1201, "a", 450, 500)
    journal.in_force(1203, "a", 450)
    for tick in range(10, 3600, 10):
        # Two minutes are missing.
        if not 2400 < tick < 2520:
            journal.tick(tick)
    return journal


@pytest.mark.long
async def test_a_report_opens_from_a_file_and_states_the_budget(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(html(report(hour().entries, HOUR, Prices(kwh=0.2), HOUR.until)))
    async with browser_page() as page:
        await page.size(1100, 900)
        await page.open(file.as_uri())
        text = await shown(page, "body", "anna on the dashboard")
        assert "The budget was held, except while 1 cut was carried out" in text
        assert "500\t3.00 s\tanna on the dashboard\tgrid" in text
        assert "chat\t2026-01-02 12:40:00\t2026-01-02 12:41:50" in text
        if os.environ.get("WATTSCALE_WRITE_SCREENSHOT"):
            await page.as_high_as_its_page(1100)
            (HERE / "report.png").write_bytes(await page.screenshot())
        assert page.problems == []
