"""Progress of a proof belongs to the code that it judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.fault_simulation import campaign
from deploy.fault_simulation.campaign import CampaignProgress, judged_code


def test_every_source_of_a_judged_room_counts(tmp_path: Path) -> None:
    (tmp_path / "agent" / "core").mkdir(parents=True)
    (tmp_path / "deploy").mkdir()
    seen = {judged_code(tmp_path)}
    for number, name in enumerate(("agent/core/caps.py", "agent/core/deadman.py", "agent/other.py", "deploy/up.py")):
        (tmp_path / name).write_text("LEASE_S = 30.0\n")
        judged_code.cache_clear()
        seen.add(judged_code(tmp_path))
        assert len(seen) == min(number + 2, 3), name


def test_a_campaign_of_other_code_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun = CampaignProgress.of(str(tmp_path), ["7"])
    begun.tally.worlds = 5
    begun.save()
    assert CampaignProgress.of(str(tmp_path), ["7"]).tally.worlds == 5
    monkeypatch.setattr(campaign, "judged_code", lambda: "of next week")
    assert CampaignProgress.of(str(tmp_path), ["7"]).tally.worlds == 0
    assert "the code has changed since" in caplog.text
