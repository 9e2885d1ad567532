"""The table of broken things: each is broken alone in a running site, named exactly, and mended by its remedy."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bus_schemas.jetstream import stream_admin
from bus_schemas.streams import DECISIONS, TELEMETRY, stream_specs
from tests.contract.bus import until
from tests.contract.kubernetes.api_server import merge
from tests.contract.kubernetes.connector_site import ADAPTER_RULES
from tests.doubles.engine_metrics import EngineMetrics
from tests.integration.verify.verified_site import SITE, SKEWED, VerifiedSite, verified_site

pytest.importorskip("kubernetes_asyncio.client", reason="kubernetes-asyncio is a test part")
Break = Callable[[VerifiedSite], AbstractAsyncContextManager[None]]
WAIT_S = 60.0


@dataclass(frozen=True)
class BrokenThing:
    """One thing to break: the context breaks it, and at its end carries the remedy out.

    ``named``: the checks that fail, and no other. ``detail`` and ``remedy``: words of the first one's sentences.
    """

    breaks: Break
    named: tuple[str, ...]
    detail: str
    remedy: str
    exit_code: int = 1


@asynccontextmanager
async def agent_stopped(site: VerifiedSite) -> AsyncIterator[None]:
    await site.parts["node-1"].stop()
    yield
    await site.parts["node-1"].start()


@asynccontextmanager
async def second_agent(site: VerifiedSite) -> AsyncIterator[None]:
    first = site.parts["node-0"]
    second = site.parts["second"] = type(first)(first.words, first.environment, site.folder / "second.log")
    await second.start()
    yield
    await second.stop()


@asynccontextmanager
async def clock_off(site: VerifiedSite) -> AsyncIterator[None]:
    (site.folder / "skew").mkdir()
    (site.folder / "skew" / "sitecustomize.py").write_text(SKEWED)
    agent = site.parts["node-1"]
    await agent.stop()
    await agent.start(PYTHONPATH=f"{site.folder / 'skew'}:{agent.environment['PYTHONPATH']}")
    yield
    await agent.stop()
    await agent.start()


@asynccontextmanager
async def stream_deleted(site: VerifiedSite) -> AsyncIterator[None]:
    await site.bus.js.delete_stream(TELEMETRY)
    yield
    assert (await site.run("streams", "apply")).code == 0


@asynccontextmanager
async def stream_forgets(site: VerifiedSite) -> AsyncIterator[None]:
    config = stream_admin.stream_config(stream_specs(site.bus.subjects)[0])
    await site.bus.js.update_stream(config, max_age=7 * 86400)
    yield
    assert (await site.run("streams", "apply")).code == 0


@asynccontextmanager
async def prometheus_down(site: VerifiedSite) -> AsyncIterator[None]:
    await site.stop_prometheus()
    yield
    await site.start_prometheus()


@asynccontextmanager
async def label_missing(site: VerifiedSite) -> AsyncIterator[None]:
    site.metrics.engine = EngineMetrics(namespace="")
    yield
    site.metrics.engine = EngineMetrics(namespace=site.deployment)


@asynccontextmanager
async def budget_too_small(site: VerifiedSite) -> AsyncIterator[None]:
    assert (await site.run("budget", "set", "700", "--site", SITE, user="operator")).code == 0
    yield
    assert (await site.run("budget", "release", "--site", SITE, user="operator")).code == 0


@asynccontextmanager
async def connector_stopped(site: VerifiedSite) -> AsyncIterator[None]:
    await site.parts["connector"].stop()
    yield
    await site.parts["connector"].start()


@asynccontextmanager
async def profile_missing(site: VerifiedSite) -> AsyncIterator[None]:
    away = site.profile.with_name("away")
    site.profile.rename(away)
    yield
    away.rename(site.profile)


@asynccontextmanager
async def verb_removed(site: VerifiedSite) -> AsyncIterator[None]:
    def rules(without: str) -> list[dict[str, list[str]]]:
        return [
            {
                "apiGroups": [group],
                "resources": resources.split(","),
                "verbs": [verb for verb in verbs.split(",") if verb != without],
            }
            for group, resources, verbs in ADAPTER_RULES
        ]

    await merge(site.kube.api, site.role, {"rules": rules("patch")})
    yield
    await merge(site.kube.api, site.role, {"rules": rules("")})


@asynccontextmanager
async def annotation_unreadable(site: VerifiedSite) -> AsyncIterator[None]:
    pod = (await site.kube.api.get(site.kube.path("", "v1", "pods")))["items"][0]["metadata"]["name"]
    path, key = site.kube.path("", "v1", "pods", pod), "dynamo.nvidia.com/gpu-power-limit"
    await merge(site.kube.api, path, {"metadata": {"annotations": {key: "lots"}}})
    yield
    await merge(site.kube.api, path, {"metadata": {"annotations": {key: "400"}}})


@asynccontextmanager
async def planner_stopped(site: VerifiedSite) -> AsyncIterator[None]:
    await site.parts["planner"].stop()
    yield
    await site.parts["planner"].start()


@asynccontextmanager
async def bus_restored(site: VerifiedSite) -> AsyncIterator[None]:
    """DECISIONS comes from a copy that is older than the last answers; planners are stopped, as the page says."""
    store, copy = site.folder / "store", site.folder / "copy"
    await site.server.stop()
    shutil.copytree(store, copy)
    await site.server.start()
    assert (await site.run("streams", "apply")).code == 0
    await green(site)
    for watts in ("1200", "1900"):
        assert (await site.run("budget", "set", watts, "--site", SITE, user="operator")).code == 0
        await green(site)
    await site.parts["planner"].stop()
    await site.server.stop()
    (old,) = [path for path in copy.rglob(DECISIONS) if path.is_dir()]
    shutil.rmtree(store / old.relative_to(copy))
    shutil.copytree(old, store / old.relative_to(copy))
    await site.server.start()
    assert (await site.run("streams", "apply")).code == 0
    yield
    await site.parts["planner"].start()


ROWS = (
    BrokenThing(agent_stopped, ("agents",), "node-1 silent", "start the agent there"),
    BrokenThing(second_agent, ("one agent per node",), "two agents report for node-0", "stop one of the two"),
    BrokenThing(clock_off, ("clocks",), "the agent of node-1 is 3600 s ahead", "set the clocks"),
    BrokenThing(stream_deleted, ("streams",), "missing: WATTSCALE_TELEMETRY", "wattscale streams apply"),
    BrokenThing(stream_forgets, ("streams", "decisions kept"), "max_age", "wattscale streams apply"),
    BrokenThing(prometheus_down, ("reachable",), "http://127.0.0.1", "start Prometheus"),
    BrokenThing(label_missing, ("labels",), "lack the label dynamo_namespace", "targetLabel dynamo_namespace"),
    BrokenThing(budget_too_small, ("smallest caps",), "800 W of 700 W", "wattscale budget release"),
    BrokenThing(connector_stopped, ("connector",), "no connector waits", "start the connector of ns-chat"),
    BrokenThing(profile_missing, ("profile",), "ns-chat.profile", "planner-profile-data"),
    BrokenThing(
        verb_removed,
        ("rights",),
        "patch on dynamographdeploymentscalingadapters/scale",
        'resources: ["dynamographdeploymentscalingadapters/scale"], verbs: [patch]',
    ),
    BrokenThing(annotation_unreadable, ("annotations",), "'lots'", "a whole number of watts"),
    BrokenThing(planner_stopped, ("leader",), "no planner leads", "wattscale planner run"),
    BrokenThing(bus_restored, ("bus not restored", "leader"), "its last", "stop all planners"),
)


def failed(checks: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    return {name: one for name, one in checks.items() if one["verdict"] == "fail"}


async def green(site: VerifiedSite) -> None:
    """Wait until every check passes or is skipped for a stated reason."""
    seen: list[object] = []

    async def well() -> bool:
        code, checks = await site.verify()
        seen[:] = [failed(checks)]
        return code == 0

    try:
        await until(well, "verify to be green", WAIT_S, 0.3)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}\n{site.logs()}") from None


async def named(site: VerifiedSite, row: BrokenThing) -> None:
    """Wait until exactly the broken thing is named, with its remedy."""
    seen: list[object] = []

    async def exactly() -> bool:
        code, checks = await site.verify()
        found = failed(checks)
        seen[:] = [code, found]
        return code == row.exit_code and tuple(found) == row.named

    try:
        await until(exactly, f"verify to name {row.named}", WAIT_S, 0.3)
    except AssertionError as error:
        raise AssertionError(f"{error}: {seen}\n{site.logs()}") from None
    _, found = seen
    assert isinstance(found, dict)
    line = found[row.named[0]]
    assert row.detail in line["detail"], line
    assert row.remedy in line["remedy"], line


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_each_broken_thing_is_named_exactly_and_its_remedy_works(tmp_path: Path) -> None:
    async with verified_site(tmp_path) as site:
        await green(site)
        for row in ROWS:
            async with row.breaks(site):
                await named(site, row)
            await green(site)
        # A login that the server refuses: nothing else can be judged.
        code, checks = await site.verify(password="another")
        assert code == 3
        assert list(failed(checks)) == ["bus"]
        assert "login" in checks["bus"]["remedy"]
        assert checks["agents"]["verdict"] == "skipped"
        # An observer sees less, and nothing that it may not see counts as broken.
        code, checks = await site.verify(user="observer")
        assert code == 0, failed(checks)
        assert checks["connector"]["verdict"] == "pass"
        assert checks["streams"]["verdict"] == "pass"
