"""No secret is shown: not by a whole site that logs all that it can, not in arguments, on pages, or on the bus."""

from __future__ import annotations

import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_schemas.jetstream.connect import Bus
from bus_schemas.jetstream.reader import raw_since
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import Rule
from tests.free_ports import free_port
from tests.integration.verify.verified_site import NODES, PASSWORD, SITE, WAIT_S, VerifiedSite, verified_site

BEARER = "of-prometheus-in-this-test"
REFUSED = "of-nobody-in-this-test"


class TalkativeSite(VerifiedSite):
    """Every part logs at its lowest level, and shows its pages."""

    token = ""

    async def _account(self, *rules: Rule) -> tuple[str, str]:
        role, self.token = await super()._account(*rules)
        return role, self.token

    def _talkative(self, name: str, file: Path, **more: Any) -> Path:
        self.pages[name] = free_port()
        content = yaml.safe_load(file.read_text())
        pages = {"health": {"port": self.pages[name]}} if name == "planner" else {"http": {"port": self.pages[name]}}
        return self.file(file.name, content | pages | more)

    def planner_settings(self) -> Path:
        made = super().planner_settings()
        prometheus = {"url": self.prometheus_url, "bearer_token": BEARER}
        return self._talkative("planner", made, log={"level": "debug"}, prometheus=prometheus)

    def agent_settings(self, node: str) -> Path:
        return self._talkative(node, super().agent_settings(node), log_level="debug")

    def connector_settings(self) -> Path:
        return self._talkative("connector", super().connector_settings(), log_level="debug")

    @property
    def secrets(self) -> tuple[str, ...]:
        return PASSWORD, BEARER, REFUSED, self.token

    def shown_by(self, part: str) -> dict[str, str]:
        """What anybody sees of a part, by place."""
        process = self.parts[part].process
        assert process is not None
        found = {
            "log": self.parts[part].log.read_text(),
            "arguments": Path(f"/proc/{process.pid}/cmdline").read_text(),
        }
        for page in ("livez", "readyz", "metrics"):
            with urllib.request.urlopen(f"http://127.0.0.1:{self.pages[part]}/{page}", timeout=10) as answer:
                found[page] = answer.read().decode()
        return found


async def _stored(bus: Bus, since: datetime) -> dict[str, str]:
    """All messages of every kind that a site stores, with their headers."""
    subjects = bus.subjects
    kinds = [subjects.all_decisions(), subjects.all_acks(), subjects.all_control()]
    kinds += [subjects.all_of("telemetry", what) for what in ("node", "plan")]
    return {kind: "".join(f"{raw.headers}{raw.data!r}" for raw in await raw_since(bus, kind, since)) for kind in kinds}


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_site_at_its_most_talkative_shows_no_secret(tmp_path: Path) -> None:
    began = datetime.now(UTC)
    async with verified_site(tmp_path, TalkativeSite) as site:
        assert isinstance(site, TalkativeSite)
        seen: dict[str, dict[str, str]] = {"commands": {}}

        async def green() -> bool:
            return (await site.verify())[0] == 0

        await until(green, "verify to be green", WAIT_S, 0.3)
        # Both sides of a lost connection have something to say about it.
        await site.server.stop()
        await site.server.start()
        assert (await site.run("streams", "apply")).code == 0
        await until(green, "verify to be green again", WAIT_S, 0.3)
        assert (await site.run("budget", "set", "1500", "--site", SITE, user="operator")).code == 0
        for words in (["status", "--json"], ["explain", site.deployment], ["decisions"], ["config", "show"]):
            done = await site.run(*words, *(["-c", str(tmp_path / "planner.yaml")] if "config" in words else []))
            seen["commands"][" ".join(words)] = done.out + done.err
        refused = await site.run("status", password=REFUSED)
        assert refused.code == 3
        seen["commands"]["a refused login"] = refused.out + refused.err
        for part in ("planner", *NODES, "connector"):
            seen[part] = site.shown_by(part)
            assert "debug" in seen[part]["log"].lower(), part
        seen["bus"] = await _stored(site.bus, began)
        assert all(seen["bus"].values()), seen["bus"]
        assert len(site.secrets) == len({secret for secret in site.secrets if len(secret) > 8})
        shown = [
            (who, where, secret)
            for who, places in seen.items()
            for where, text in places.items()
            for secret in site.secrets
            if secret in text
        ]
        assert shown == []
