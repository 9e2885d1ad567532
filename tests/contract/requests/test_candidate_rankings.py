"""Dynamo's candidates by goodput per watt: figures, what is left out, and that nothing of Dynamo's is ever written."""

from __future__ import annotations

import asyncio
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.adapters.kubernetes.api import ApiError
from deploy.requests.cluster.candidate_rankings import CANDIDATES, FILE, RUNS, CandidateRankings
from planner.profiler.requests.candidate_ranking import CandidateError, rank_candidates
from tests.contract.bus import until
from tests.contract.requests.request_site import DEFINITION, DEFINITIONS, MAPS, NAMESPACE, RequestSite, request_site

RUN_UID = "run-uid"
MAP = "power-ranking-search-1"


def run(sku: str = "h200_sxm", completed: str = "True") -> dict[str, Any]:
    return {
        "metadata": {"name": "search-1", "namespace": NAMESPACE, "uid": RUN_UID},
        "spec": {"hardware": {"gpu": {"sku": sku, "budget": 32}}},
        "status": {
            "conditions": [{"type": "Completed", "status": completed}],
            "candidateRefs": [{"name": "a"}, {"name": "b"}],
        },
    }


def pool(kind: str, replicas: int, gpus: int, limit: int | None = None) -> dict[str, Any]:
    container = {"name": "main", "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}
    template: dict[str, Any] = {"spec": {"containers": [container]}}
    if limit is not None:
        template["metadata"] = {"annotations": {"dynamo.nvidia.com/gpu-power-limit": str(limit)}}
    return {"name": kind, "type": kind, "replicas": replicas, "podTemplate": template}


def candidate(name: str, goodput: float | None, *pools: dict[str, Any], **metrics: float) -> dict[str, Any]:
    found = {"output_throughput_tok_s": 9000.0, **metrics}
    if goodput is not None:
        found["goodput_output_throughput_tok_s"] = goodput
    return {
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"nvidia.com/dgdr-run-uid": RUN_UID}},
        "spec": {"components": [{"name": "Frontend", "type": "frontend"}, *pools]},
        "status": {"metrics": found},
    }


A = candidate("a", 1000.0, pool("worker", 2, 4))
B = candidate("b", 900.0, pool("prefill", 1, 2), pool("decode", 2, 2))


def test_watts_are_those_of_the_phase_and_the_order_is_by_goodput_for_each_of_them() -> None:
    found = rank_candidates(run(), [A, B])
    # P_u of an H200: 616 W in prefill and where phases are mixed, 511 W in decode.
    assert [(one.name, one.before, round(one.watts)) for one in found.ranked] == [
        ("b", 2, 2 * 616 + 4 * 511),
        ("a", 1, 8 * 616),
    ]
    assert found.ranked[0].tokens_per_joule == pytest.approx(900 / 3276)


def test_gpus_are_those_that_the_replay_held_on_average() -> None:
    held = candidate("c", 500.0, pool("worker", 4, 2), gpu_hours=0.4, duration_ms=360_000.0)
    (one,) = rank_candidates(run(), [held]).ranked
    assert one.gpus == pytest.approx(4.0)
    assert one.watts == pytest.approx(4 * 616)


def test_under_a_limit_watts_and_goodput_fall_together() -> None:
    (one,) = rank_candidates(run(), [candidate("d", 1000.0, pool("worker", 1, 1, limit=400))]).ranked
    assert one.watts == pytest.approx(400)
    assert one.goodput == pytest.approx(1000 * ((400 - 140) / (616 - 140)) ** 0.6, rel=1e-3)


def test_the_older_form_of_a_candidate_is_read_too() -> None:
    old = copy.deepcopy(A)
    old["status"] = {"rank": 4, "experimental": {"metrics": A["status"]["metrics"]}}
    (one,) = rank_candidates(run(), [old]).ranked
    assert (one.before, one.goodput) == (4, 1000.0)


def test_what_cannot_be_ranked_is_named() -> None:
    odd = candidate("odd", 10.0, pool("worker", 1, 1))
    odd["spec"]["components"][1]["replicas"] = "many"
    found = rank_candidates(run(), [candidate("x", None, pool("worker", 1, 1)), candidate("y", 5.0), odd, A])
    assert [one.name for one in found.ranked] == ["a"]
    assert list(found.left_out) == ["odd", "x", "y"]
    assert found.left_out["x"].startswith("it states no goodput")
    with pytest.raises(CandidateError, match="no figures for GPU type 'mi300'"):
        rank_candidates(run("mi300"), [A])


async def searches(site: RequestSite) -> None:
    """Dynamo's kinds of v1beta2, as far as they are read here."""
    for kind, plural in (("DynamoGraphDeploymentRun", RUNS), ("DynamoGraphDeploymentCandidate", CANDIDATES)):
        made = copy.deepcopy(yaml.safe_load(DEFINITION.read_text()))
        names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
        made["metadata"] = {"name": f"{plural}.nvidia.com"}
        made["spec"] |= {"group": "nvidia.com", "names": names}
        made["spec"]["versions"][0] |= {"name": "v1beta2", "additionalPrinterColumns": []}
        await site.cluster.send("POST", DEFINITIONS, made)


async def test_a_completed_run_is_ranked_once_and_nothing_of_dynamos_is_written(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await searches(site)
        await site.double.put("nvidia.com", RUNS, run(completed="False"))
        for one in (A, B):
            await site.double.put("nvidia.com", CANDIDATES, one)
        rankings = CandidateRankings(site.cluster, NAMESPACE)
        await rankings.rank_completed()
        assert MAP not in site.names(MAPS), "candidates of a run that goes on are provisional"
        await site.double.put("nvidia.com", RUNS, run())
        before = len(site.double.requests)
        await rankings.rank_completed()
        await CandidateRankings(site.cluster, NAMESPACE).rank_completed()
        asked = [(method, address.partition("?")[0]) for method, address in site.double.requests[before:]]
        written = [one for one in asked if one[0] != "GET"]
        assert written == [("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps")], "once, by both"
        found = site.map(MAP)
        assert found["metadata"]["ownerReferences"][0]["uid"] == RUN_UID
        ranking = json.loads(found["data"][FILE])
        assert [(one["rank"], one["name"], one["dynamoRank"]) for one in ranking["candidates"]] == [
            (1, "b", 2),
            (2, "a", 1),
        ]


class OneRefused:
    """A cluster that takes the ConfigMap of one of two runs."""

    def __init__(self) -> None:
        self.written: list[str] = []

    async def get(self, where: str, _: object = None) -> dict[str, Any]:
        if RUNS in where:
            return {"items": [{**run(), "metadata": {**run()["metadata"], "name": "search-0", "uid": "other"}}, run()]}
        return {"items": [A] if CANDIDATES in where else []}

    async def send(self, _: str, __: str, body: dict[str, Any]) -> None:
        name = body["metadata"]["name"]
        if name.endswith("-0"):
            raise ApiError(422, f"{name} is too long")
        self.written.append(name)


async def test_a_ranking_that_the_server_refuses_keeps_no_other_back(caplog: pytest.LogCaptureFixture) -> None:
    cluster = OneRefused()
    rankings = CandidateRankings(cluster, NAMESPACE)  # type: ignore[arg-type]
    await rankings.rank_completed()
    await rankings.rank_completed()
    assert set(cluster.written) == {MAP}
    assert caplog.text.count("search-0: its ranking cannot be written") == 1


class WithoutNamespace(OneRefused):
    """A cluster whose namespace is being removed: it has the kinds, and takes no ConfigMap."""

    async def send(self, _: str, __: str, body: dict[str, Any]) -> None:
        raise ApiError(404, f'namespaces "{NAMESPACE}" not found')


async def test_a_namespace_that_is_missing_is_not_taken_for_a_missing_kind(caplog: pytest.LogCaptureFixture) -> None:
    rankings = CandidateRankings(WithoutNamespace(), NAMESPACE, every_s=0.01)  # type: ignore[arg-type]
    running = asyncio.create_task(rankings.run())
    try:
        await until(lambda: "candidates cannot be ranked now" in caplog.text, "it says so")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert f'namespaces "{NAMESPACE}" not found' in caplog.text
    assert "nothing to rank yet" not in caplog.text


async def test_a_map_of_somebody_elses_stays_and_a_cluster_without_searches_is_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with request_site(tmp_path) as site:
        running = asyncio.create_task(CandidateRankings(site.cluster, NAMESPACE, every_s=0.01).run())
        try:
            await until(lambda: "nothing to rank yet" in caplog.text, "it says so")
            assert "has no kind DynamoGraphDeploymentRun (nvidia.com/v1beta2)" in caplog.text
            assert "operator brings it; looked for every 15 s" in caplog.text
            await site.double.put(*MAPS, {"metadata": {"name": MAP, "namespace": NAMESPACE}, "data": {"x": "theirs"}})
            await searches(site)
            await site.double.put("nvidia.com", RUNS, run())
            await site.double.put("nvidia.com", CANDIDATES, A)
            await until(lambda: "is not ours" in caplog.text, "it says so")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert site.map(MAP)["data"] == {"x": "theirs"}
        assert caplog.text.count("nothing to rank yet") == 1
