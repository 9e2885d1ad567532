"""``status.profilingPhase`` while a Job runs: as its pod reports it, and after pod, Job or controller were killed."""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deploy.requests.cluster.phase_report import report
from deploy.requests.cluster.request_objects import REPORTED_PHASE
from planner.profiler.analysis.profiling_phase import ProfilingPhase
from planner.profiler.online.measurement_log import MeasurementLog
from tests.contract.bus import until
from tests.contract.requests.request_site import JOBS, NAME, NAMESPACE, RequestSite, request_site

JOB = f"profile-{NAME}-tp1"
STARTS_S = 180.0


async def pod(site: RequestSite, uid: str, phase: str = "Running") -> None:
    metadata = {"name": f"{JOB}-{uid}", "namespace": NAMESPACE, "uid": uid, "labels": {"job-name": JOB}}
    await site.double.put("", "pods", {"metadata": metadata, "status": {"phase": phase}})


@asynccontextmanager
async def reporting(site: RequestSite, uid: str, folder: Path) -> AsyncIterator[None]:
    """The sidecar of a pod, by the same code."""
    task = asyncio.create_task(report(site.cluster, NAMESPACE, JOB, uid, folder, poll_s=0.01))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def reported(site: RequestSite) -> str:
    return str((site.map(JOB)["metadata"].get("annotations") or {}).get(REPORTED_PHASE, ""))


def says(site: RequestSite, phase: str) -> bool:
    return reported(site) == phase


async def shown(site: RequestSite, *, anew: bool = False) -> str:
    """The phase after the controller's next look; ``anew``: a controller that knows nothing of the first."""
    await (site.controller(site.cluster) if anew else site.watch).carry_out(NAME)
    return str(site.status()["profilingPhase"])


async def test_the_phase_is_the_one_that_the_jobs_pod_reports(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request()
        assert await shown(site) == "Initializing"
        await pod(site, "one")
        log = MeasurementLog(tmp_path, {})
        async with reporting(site, "one", tmp_path):
            for phase in ("SweepingPrefill", "SweepingDecode", "SelectingConfig", "BuildingCurves"):
                log.began(ProfilingPhase(phase))
                await until(functools.partial(says, site, phase), "it is reported")
                assert await shown(site) == phase
        log.close()
        assert await shown(site, anew=True) == "BuildingCurves", "a killed controller's successor reads the same"
        await site.ends(1)
        assert (await shown(site), site.stage()) == ("Done", "Ready")


async def test_a_killed_pod_or_job_begins_anew(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request()
        await site.step()
        log = MeasurementLog(tmp_path, {})
        log.began(ProfilingPhase.SWEEPING_DECODE)
        await pod(site, "one")
        async with reporting(site, "one", tmp_path):
            await until(lambda: reported(site), "it is reported")
        assert await shown(site) == "SweepingDecode"
        await pod(site, "one", "Failed")
        assert await shown(site) == "Initializing", "the next pod's engine is not up yet"
        await pod(site, "two")
        assert await shown(site) == "Initializing"
        async with reporting(site, "two", tmp_path):
            # It goes on with the log that the first one left on the claim.
            await until(lambda: "two" in site.map(JOB)["metadata"]["annotations"].values(), "it is reported")
        assert await shown(site) == "SweepingDecode"
        await site.double.remove(*JOBS, NAMESPACE, JOB)
        await site.double.remove("", "pods", NAMESPACE, f"{JOB}-two")
        assert await shown(site, anew=True) == "Initializing"
        assert site.names(JOBS) == [JOB], "made again"
        log.close()


async def test_a_failure_names_the_phase_in_which_it_happened(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request()
        await site.step()
        log = MeasurementLog(tmp_path, {})
        log.began(ProfilingPhase.SWEEPING_DECODE)
        log.close()
        await pod(site, "one")
        async with reporting(site, "one", tmp_path):
            await until(lambda: reported(site), "it is reported")
        await site.fails(1, "the engine ended")
        await site.step()
        profiling = next(one for one in site.status()["conditions"] if one["type"] == "Profiling")
        assert (profiling["reason"], profiling["status"]) == ("SweepingDecodeFailed", "False")


async def test_what_is_no_phase_of_a_profiler_is_not_believed(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request()
        await site.step()
        await pod(site, "one")
        for value in ("Done", "GeneratingDGD", "", "x" * 5000):
            body = {"metadata": {"annotations": {REPORTED_PHASE: value, "wattscale.io/profiling-pod": "one"}}}
            await site.cluster.send("PATCH", f"/api/v1/namespaces/{NAMESPACE}/configmaps/{JOB}", body)
            assert await shown(site) == "Initializing"
        assert site.stage() == "Profiling"


async def test_a_sidecar_waits_for_a_server_that_is_away_and_ends_by_a_signal(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request()
        await site.step()
        await site.double.stop()
        log = MeasurementLog(tmp_path, {})
        log.began(ProfilingPhase.SWEEPING_PREFILL)
        log.close()
        words = ("--results", str(tmp_path), "--namespace", NAMESPACE, "--config-map", JOB, "--pod-uid", "one")
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "deploy.cli.main", "request", "report", *words),
            *("--kubeconfig", str(tmp_path / "kubeconfig.json")),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert started.stderr is not None
            said = await asyncio.wait_for(started.stderr.readline(), STARTS_S)
            assert b"SweepingPrefill is not reported yet" in said
            await site.double.start_again()
            await until(lambda: reported(site) == "SweepingPrefill", "it is reported", STARTS_S)
            os.kill(started.pid, signal.SIGTERM)
            assert await asyncio.wait_for(started.wait(), STARTS_S) == 0
        finally:
            if started.returncode is None:
                started.kill()
                await started.wait()


async def test_only_the_containers_that_write_have_the_accounts_token(tmp_path: Path) -> None:
    async with request_site(tmp_path) as site:
        await site.request()
        await site.step()
        spec = site.double.find(*JOBS, NAMESPACE, JOB)["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        every = [*spec["initContainers"], *spec["containers"]]
        holders = [one["name"] for one in every for mount in one["volumeMounts"] if mount["name"] == "account"]
        assert [one["name"] for one in spec["initContainers"]] == ["engine", "report", "profile"]
        assert holders == ["report", "upload"]
