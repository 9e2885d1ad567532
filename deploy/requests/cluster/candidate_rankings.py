"""Ranks the candidates of Dynamo's searches by goodput per watt, and writes each ranking into a ConfigMap of its own.

Read only towards Dynamo: runs and candidates are listed, and nothing of theirs is written. A run that is completed and
its candidates never change, so that each ranking is written once; it goes with its run, by the garbage collector.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.adapters.kubernetes.api import ApiError
from deploy.requests.cluster.request_objects import CORE, path
from deploy.requests.cluster.request_view import NOT_FOUND, items
from planner.profiler.requests.candidate_ranking import CandidateError, rank_candidates
from planner.profiler.requests.power_request import OWN_GROUP

if TYPE_CHECKING:
    from agent.connectors.kubernetes.cluster_client import ClusterClient

log = logging.getLogger("wattscale.requests")
SEARCHES = "/apis/nvidia.com/v1beta2"
RUNS, CANDIDATES = "dynamographdeploymentruns", "dynamographdeploymentcandidates"
OF_RUN = "nvidia.com/dgdr-run-uid"
"""Dynamo's label on candidates."""
RANKED_RUN = f"{OWN_GROUP}/ranked-run"
"""On our ConfigMap: the run's uid."""
FILE = "ranking.json"
CHECKS_EVERY_S = 15.0
THERE_ALREADY = 409
REFUSED = (400, 413, 422)
"""The server will not take this object, as one that is too large; others it may."""


class NoSearchesError(Exception):
    """The cluster has no kind for searches."""

    def __str__(self) -> str:
        return (
            "--rank-candidates: this cluster has no kind DynamoGraphDeploymentRun (nvidia.com/v1beta2): there is "
            f"nothing to rank yet. A release of Dynamo's operator brings it; looked for every {CHECKS_EVERY_S:g} s"
        )


class CandidateRankings:
    """All completed runs of one namespace."""

    def __init__(self, cluster: ClusterClient, namespace: str, *, every_s: float = CHECKS_EVERY_S) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._every_s = every_s
        self._warned: set[str] = set()

    async def run(self) -> None:
        """Rank again and again, until cancelled."""
        while True:
            try:
                await self.rank_completed()
            except NoSearchesError as error:
                self._warn_once(str(error))
            except ApiError as error:
                log.warning("candidates cannot be ranked now: %s", error)
            await asyncio.sleep(self._every_s)

    async def rank_completed(self) -> None:
        """Rank what is completed and not ranked. Raises ApiError, and NoSearchesError without Dynamo's kinds."""
        try:
            runs = await items(self._cluster, path(SEARCHES, self._namespace, RUNS))
        except ApiError as error:
            if error.status == NOT_FOUND:
                raise NoSearchesError from error
            raise
        if not any(_completed(run) for run in runs):
            return
        ours = await items(self._cluster, path(CORE, self._namespace, "configmaps"), {"labelSelector": RANKED_RUN})
        ranked = {one["metadata"]["labels"][RANKED_RUN] for one in ours}
        for run in runs:
            if _completed(run) and run["metadata"]["uid"] not in ranked:
                await self._rank(run)

    async def _rank(self, run: Mapping[str, Any]) -> None:
        meta = run["metadata"]
        chosen = {"labelSelector": f"{OF_RUN}={meta['uid']}"}
        candidates = await items(self._cluster, path(SEARCHES, self._namespace, CANDIDATES), chosen)
        if not candidates:
            return
        try:
            ranking = rank_candidates(run, candidates)
        except CandidateError as error:
            self._warn_once(f"{meta['name']}: its candidates are not ranked: {error}")
            return
        body = _config_map(run, self._namespace, json.dumps(ranking.to_dict(), indent=1) + "\n")
        try:
            await self._cluster.send("POST", path(CORE, self._namespace, "configmaps"), body)
        except ApiError as error:
            if error.status == THERE_ALREADY:
                self._warn_once(f"{meta['name']}: ConfigMap {body['metadata']['name']} is not ours and stays")
            elif error.status in REFUSED:
                self._warn_once(f"{meta['name']}: its ranking cannot be written: {error}")
            else:
                raise
            return
        best = f", the best is {ranking.ranked[0].name}" if ranking.ranked else ""
        log.info("%s: %d of %d candidates are ranked%s", meta["name"], len(ranking.ranked), len(candidates), best)

    def _warn_once(self, line: str) -> None:
        """Once."""
        if line not in self._warned:
            self._warned.add(line)
            log.warning("%s", line)


def _completed(run: Mapping[str, Any]) -> bool:
    conditions = (run.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Completed" and one.get("status") == "True" for one in conditions)


def _config_map(run: Mapping[str, Any], namespace: str, text: str) -> dict[str, Any]:
    meta = run["metadata"]
    owner = {"apiVersion": "nvidia.com/v1beta2", "kind": "DynamoGraphDeploymentRun", "name": meta["name"]}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": f"power-ranking-{meta['name']}"[:253],
            "namespace": namespace,
            "labels": {RANKED_RUN: meta["uid"]},
            "ownerReferences": [{**owner, "uid": meta["uid"]}],
        },
        "data": {FILE: text},
    }
