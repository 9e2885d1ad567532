"""`deploy/helm/prove-agent`, with a recording stand-in for kubectl: there is no GPU node here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "deploy" / "helm" / "prove-agent"
STAND_IN = """#!/usr/bin/env bash
echo "$*" >>"$RECORD"
case "$3" in
  get) printf '%s' "$PODS" ;;
  exec) [ "$4" != bad ] ;;
esac
"""


@pytest.mark.parametrize(
    ("pods", "code", "asked"), [("good node-1\nfine node-2\n", 0, 2), ("bad node-1\ngood node-2\n", 1, 2), ("", 2, 0)]
)
def test_every_agent_is_asked_and_one_that_lacks_something_is_named(
    tmp_path: Path, pods: str, code: int, asked: int
) -> None:
    (tmp_path / "kubectl").write_text(STAND_IN)
    (tmp_path / "kubectl").chmod(0o755)
    record = tmp_path / "record"
    done = subprocess.run(
        [str(SCRIPT), "power"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "RECORD": str(record), "PODS": pods},
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
    assert done.returncode == code, done.stderr
    calls = record.read_text().splitlines()
    assert len(calls) == 1 + asked
    assert all("exec" in call and "agent check --settings /etc/wattscale/agent.yaml" in call for call in calls[1:])
    assert ("agent.privileged=true" in done.stdout) == (code == 1)
