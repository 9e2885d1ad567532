"""Every query of dashboards and rules returns data from a real Prometheus that scrapes our processes."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from deploy.observability.dashboards import dashboards
from planner.adapters.metrics.prometheus_client import PrometheusClient, PrometheusSettings
from tests.free_ports import free_port
from tests.integration.observability.expressions import sides
from tests.integration.verify.verified_site import SITE, VerifiedSite, verified_site
from tests.shared_data import ROOT

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")
WAIT_S = 240.0
HANDED_ON = "handed-on"
ONLY_DURING = "a row exists only during the problem; here is the second agent's"
WITHOUT_DATA = {
    'max by (instance) (wattscale_planner_problem{problem="no_node"})': ONLY_DURING,
    'max by (who) (wattscale_planner_problem{problem="other_budget"})': ONLY_DURING,
    'max by (who) (wattscale_planner_problem{problem="flooding"})': ONLY_DURING,
    'max by (who) (wattscale_planner_problem{problem="implausible"})': ONLY_DURING,
    'max by (invariant) (wattscale_site_frozen{site=~".*"})': "a row exists only while raises are frozen",
    'max by (deployment, pool, figure) (wattscale_planner_gpu_watts{deployment=~".*"})': (
        "no kubelet says here which GPUs are a pool's, so no pool has draws"
    ),
}
"""The queries that may return nothing here, and why."""


class ScrapedSite(VerifiedSite):
    """A site whose processes have pages.

    It has a promised share, a second agent, and a second deployment that the autoscaler connector hands on.
    """

    components: ClassVar[Mapping[str, int]] = {"Prefill": 1, "Decode": 1}
    engines: ClassVar[Mapping[str, str]] = {"prefill": "prefill", "backend": "decode"}
    every = "2s"

    async def start(self, graph: str) -> None:
        handed_on = {
            "deployment": HANDED_ON,
            "namespace": "prod",
            "metrics_api": {"host": "127.0.0.1", "port": free_port()},
            "nats": {"servers": [self.server.url], "user": "root"},
        }
        autoscaler = self.file("autoscaler.yaml", handed_on)
        self._add("autoscaler", "connector", "autoscaler", "--settings", str(autoscaler))
        same_node = yaml.safe_load(self.agent_settings("node-0").read_text())
        self._add("second", "agent", "power", "--settings", str(self.file("second.yaml", same_node)))
        await super().start(graph)

    def file(self, name: str, content: Mapping[str, Any]) -> Path:
        """The settings with an address for the pages."""
        part = name.removesuffix(".yaml")
        self.pages.setdefault(part, free_port())
        pages = {"host": "127.0.0.1", "port": self.pages[part]}
        return super().file(name, {**content, "health" if part == "planner" else "http": pages})

    def planner_settings(self) -> Path:
        path = super().planner_settings()
        content = yaml.safe_load(path.read_text())
        # Long terms: a planner that loses the lead on a slow machine has no figures.
        content |= {"interval_s": 8, "lease": {"ttl_s": 60}}
        content["sites"][SITE] |= {"stale_s": 60, "lease_s": 120}
        deployment = content["deployments"][self.deployment]
        deployment["slo_share"] = 0.9
        deployment["pools"] = {
            pool: {"role": pool, "component": component, "min_replicas": 2, "max_replicas": 2}
            for component, pool in self.engines.items()
        }
        return super().file(path.name, content)


def queries() -> Iterator[str]:
    """Each once: of panels with every value of their variables, and both sides of each comparison of a rule."""
    found: dict[str, None] = {}
    for dashboard in dashboards():
        for panel in dashboard.model()["panels"]:
            for target in panel.get("targets", ()):
                found[re.sub(r"\$\w+", ".*", target["expr"])] = None
    for group in yaml.safe_load((ROOT / "deploy" / "observability" / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            found |= dict.fromkeys(sides(rule["expr"]))
    yield from found


async def without_data(client: PrometheusClient, asked: list[str]) -> list[str]:
    """Those of the queries that return no row with a number."""
    empty = []
    for query in asked:
        rows = await client.query(query)
        if all(math.isnan(row.value) for row in rows):
            empty.append(query)
    return empty


@pytest.mark.long
async def test_every_query_returns_data(tmp_path: Path) -> None:
    async with verified_site(tmp_path, ScrapedSite) as site:
        client = PrometheusClient(PrometheusSettings(site.prometheus_url))
        every = list(queries())
        assert set(WITHOUT_DATA) <= set(every), "an exception for a query that is not there"
        empty = [one for one in every if one not in WITHOUT_DATA]
        await without_data(client, list(WITHOUT_DATA))
        try:
            async with asyncio.timeout(WAIT_S):
                while empty := await without_data(client, empty):
                    await asyncio.sleep(1.0)
        except TimeoutError:
            pass
        finally:
            await client.close()
        assert not empty, "\n".join([*empty, site.logs()])
