"""Every screen of `wattscale top` as it was approved, in a small terminal and a large one; and the README's picture.

After an intended change: ``pytest FILE --snapshot-update`` with WATTSCALE_WRITE_SCREENSHOT set, and read the diff.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from syrupy.assertion import SnapshotAssertion
from textual.pilot import Pilot

from deploy.top.top_app import KEYS_OF_TEXT
from tests.doubles.seen_site import SITE
from tests.unit.deploy.top.test_top_app import SIZES, SiteOfTest, app_of, messages, shown

TABLES = ("pools", "budget", "GPUs", "decisions", "agents")
PICTURE = Path(__file__).with_name("top.svg")
PICTURE_SIZE = (100, 25)
FROM_ELSEWHERE = re.compile(r"@font-face \{.*?\}\s*|<!--.*?-->", re.DOTALL)
"""Fonts of another site, instead of which the reader's own monospaced one is used, and who drew the picture."""


def framed(title: str, lines: list[str]) -> str:
    """A screen with its borders, so that its width and its empty lines are seen."""
    return "\n".join([f"=== {title}", *(f"|{line}" for line in lines)])


async def after(pilot: Pilot[None], title: str, has: str, *keys: str) -> str:
    return framed(title, await shown(pilot, has, *keys))


@SIZES
async def test_every_table_and_text_is_as_approved(size: tuple[int, int], snapshot: SnapshotAssertion) -> None:
    async with app_of(SiteOfTest(messages())).run_test(size=size) as pilot:
        await shown(pilot, SITE)
        screens = [await after(pilot, name, f"[{key} {name}]", key) for key, name in zip("12345", TABLES, strict=True)]
        screens.append(await after(pilot, "explanation", KEYS_OF_TEXT, "1", "down", "enter"))
        await shown(pilot, "[1 pools]", "escape")
        screens.append(await after(pilot, "GPUs filtered by a draw", "1 of 16", "3", "slash", *"500", "enter"))
    assert "\n\n".join(screens) == snapshot


async def test_the_picture_of_the_readme_is_what_the_screen_shows() -> None:
    async with app_of(SiteOfTest(messages())).run_test(size=PICTURE_SIZE) as pilot:
        await shown(pilot, SITE)
        await shown(pilot, "[3 GPUs]", "3")
        picture = pilot.app.export_screenshot(title="wattscale top")
    drawn = FROM_ELSEWHERE.sub("", picture)
    assert "http" not in drawn.replace("http://www.w3.org/", "")
    if os.environ.get("WATTSCALE_WRITE_SCREENSHOT"):
        PICTURE.write_text(drawn)
    assert drawn == PICTURE.read_text()
