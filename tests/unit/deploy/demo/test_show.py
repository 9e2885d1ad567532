"""What `wattscale up` shows runs beside its other parts, none of which may end by itself."""

from __future__ import annotations

import asyncio

import pytest

from deploy.demo.show import show
from deploy.views.live_view import DemoStatus
from deploy.views.site_view import SiteView


@pytest.mark.parametrize("quiet", [True, False])
async def test_it_goes_on_until_it_is_cancelled(capsys: pytest.CaptureFixture[str], *, quiet: bool) -> None:
    showing = asyncio.create_task(show(SiteView(), lambda: DemoStatus("a title", "a hint", 0.0, 0.0), quiet=quiet))
    done, _ = await asyncio.wait([showing], timeout=0.2)
    assert not done
    showing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await showing
    out, err = capsys.readouterr()
    assert (out, err) == (("", "a hint\n") if quiet else ("a title\na hint\n", ""))
