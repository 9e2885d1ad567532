"""Annotation mode with no bus at all: pods come, change and go, and the limits follow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.adapters.kubernetes.access import Access
from agent.adapters.kubernetes.api import KubernetesApi
from agent.adapters.kubernetes.event_recorder import KubernetesEvents
from agent.adapters.kubernetes.gpu_owners import KubernetesOwners, PodLabels
from agent.adapters.kubernetes.pods import pods_of_node
from agent.adapters.managed_state import ManagedState
from agent.adapters.pod_resources.kubelet import PodResources
from agent.core.caps import CapDecision
from agent.drivers.procfs import ProcFs
from agent.drivers.simulated import SimulatedDriver
from agent.ports import monotonic
from agent.runtime.annotation_limits import AnnotationLimits
from agent.runtime.service import PowerAgentService
from agent.runtime.settings import OnExit, PowerAgentSettings
from tests.contract.bus import until
from tests.doubles.kubelet import FakeKubelet
from tests.doubles.kubernetes import KubernetesDouble
from tests.integration.agent.test_list_watch import FAST, pod
from tests.integration.agent.wire import target
from tests.unit.agent.drivers.test_procfs import process

KEY = "dynamo.nvidia.com/gpu-power-limit"
G0, G1 = "GPU-n1-00", "GPU-n1-01"


class Scene:
    """A node: API server, kubelet, two GPUs, a state file."""

    def __init__(self, folder: Path, kube: KubernetesDouble, kubelet: FakeKubelet | None) -> None:
        self.folder, self.kube, self.kubelet = folder, kube, kubelet
        self.driver = SimulatedDriver.of("n1", 2)
        self.state_file = folder / "state" / "managed.json"

    @property
    def limits(self) -> list[int]:
        return [gpu.enforced_mw // 1000 for gpu in self.driver.gpus.values()]

    async def run(self, name: str, gpu: str | None, watts: str | None, **more: Any) -> None:
        """A pod on the node, with a GPU and an annotation."""
        if self.kubelet is not None and gpu is not None:
            self.kubelet.assigned = {**self.kubelet.assigned, ("ns", name): {"nvidia.com/gpu": [gpu]}}
        await self.kube.put("", "pods", pod(name, annotations={} if watts is None else {KEY: watts}, **more))

    async def end(self, name: str) -> None:
        if self.kubelet is not None:
            self.kubelet.assigned = {key: value for key, value in self.kubelet.assigned.items() if key[1] != name}
        await self.kube.remove("", "pods", "ns", name)

    @asynccontextmanager
    async def agent(self, on_exit: OnExit = OnExit.KEEP, *, alone: bool = True) -> AsyncIterator[PowerAgentService]:
        settings = PowerAgentSettings(node="n1", telemetry_interval_s=0.05, on_exit=on_exit)
        async with KubernetesApi(Access(self.kube.url)) as api:
            watch = pods_of_node(api, "n1", timing=FAST)
            source = PodResources(self.kubelet.socket) if self.kubelet else None
            owners = KubernetesOwners(watch, pod_resources=source, processes=ProcFs(self.folder / "proc"))
            events = KubernetesEvents(api, "n1")
            annotation_limits = AnnotationLimits(
                owners,
                safe_default_mw=500_000,
                alone=alone,
                clock=monotonic,
                state=ManagedState(self.state_file),
                events=events,
            )
            service = PowerAgentService(
                settings, None, self.driver, owners, annotation_limits=annotation_limits, events=events
            )
            owners.gpus = service.node_gpus
            tasks = [asyncio.create_task(watch.run()), asyncio.create_task(service.run())]
            try:
                yield service
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with KubernetesDouble() as kube, FakeKubelet(tmp_path) as kubelet:
        yield Scene(tmp_path, kube, kubelet)


async def test_limits_follow_pods_that_come_change_and_go(scene: Scene) -> None:
    async with scene.agent():
        await scene.run("a", G0, "400")
        await until(lambda: scene.limits == [400, 700], "the annotation")
        await scene.run("a", G0, "300")
        await until(lambda: scene.limits == [300, 700], "the lower one")
        await scene.run("a", G0, "450")
        await until(lambda: scene.limits == [450, 700], "the higher one")
        await scene.end("a")
        await scene.run("b", G1, "600")
        await until(lambda: scene.limits == [450, 600], "the cap to stay on the idle GPU")
        await scene.run("c", G0, None)
        await until(lambda: scene.limits == [700, 600], "the GPU to be given back to a pod that asks for nothing")
        await until(lambda: list(json.loads(scene.state_file.read_text())["managed"]) == [G1], "the state to be kept")


async def test_a_gpus_owner_is_known_down_to_the_container_that_the_kubelet_names(scene: Scene) -> None:
    async with scene.agent() as service:
        await scene.run("a", G0, None)
        await until(lambda: G0 in service.gpu_owners.owners, "the owner")
        owner = service.gpu_owners.owners[G0]
        assert (owner.pod, owner.container) == ("ns/a", "engine")


async def test_a_pod_deleted_by_force_keeps_its_gpu_while_the_kubelet_shows_it(scene: Scene) -> None:
    async with scene.agent() as service:
        await scene.run("a", G0, "400", labels={PodLabels().deployment: "llm"})
        await until(lambda: G0 in service.gpu_owners.owners and service.gpu_owners.owners[G0].deployment, "the owner")
        await until(lambda: scene.limits == [400, 700], "the annotation")
        await scene.kube.remove("", "pods", "ns", "a")
        await until(lambda: service.gpu_owners.owners[G0].terminating, "the pod to be gone from the API")
        owner = service.gpu_owners.owners[G0]
        assert (owner.deployment, owner.worker) == ("ns-llm", "a")
        assert scene.limits == [400, 700]
        assert scene.kubelet is not None
        scene.kubelet.assigned = {}
        await until(lambda: G0 not in service.gpu_owners.owners, "its end")


async def test_a_pod_that_was_deleted_by_force_before_the_agent_began_is_reported_as_leaving(scene: Scene) -> None:
    await scene.run("a", G0, None, labels={PodLabels().deployment: "llm"})
    await scene.kube.remove("", "pods", "ns", "a")
    async with scene.agent() as service:
        await until(lambda: G0 in service.gpu_owners.owners, "the owner")
        owner = service.gpu_owners.owners[G0]
        assert (owner.deployment, owner.worker, owner.terminating) == ("", "a", True)


async def test_a_gpu_never_capped_by_us_is_left_alone(scene: Scene) -> None:
    scene.driver.set_limit(G0, 555_000)
    async with scene.agent() as service:
        await scene.run("plain", G0, None)
        await scene.run("capped", G1, "400")
        await until(lambda: scene.limits == [555, 400], "the other GPU's cap")
        scene.driver.set_limit(G0, 666_000)
        looks = service.hardware.snapshots

        def read_mw() -> int | None:
            reading = looks[G0].reading
            return None if reading is None else reading.requested_mw

        await until(lambda: read_mw() == 666_000, "a reading of the foreign limit")
        await scene.run("capped", G1, "300")
        await until(lambda: scene.limits == [666, 300], "the foreign limit to stay")


async def test_the_lowest_wins_on_a_shared_gpu_with_events_on_both_pods(scene: Scene) -> None:
    async with scene.agent():
        await scene.run("a", f"{G0}::0", "450")
        await scene.run("b", f"{G0}::1", "350")
        await until(lambda: scene.limits == [350, 700], "the lower one")
        await until(lambda: len(scene.kube.objects("", "events")) >= 2, "events")
    events = scene.kube.objects("", "events")
    assert {event["involvedObject"]["name"] for event in events} == {"a", "b"}
    assert {event["reason"] for event in events} == {"SharedGpuPowerLimit"}


async def test_a_malformed_annotation_is_the_safe_default_with_an_event(scene: Scene) -> None:
    async with scene.agent() as service:
        await scene.run("a", G0, "four hundred")
        await until(lambda: scene.limits == [500, 700], "the safe default")
        await until(lambda: bool(scene.kube.objects("", "events")), "the event")
        assert service.annotation_limits is not None
        assert service.annotation_limits.malformed == 1
    event = scene.kube.objects("", "events")[0]
    assert (event["reason"], event["involvedObject"]["uid"]) == ("MalformedGpuPowerLimit", "uid-a")
    assert "four hundred" in event["message"]


async def test_while_pods_cannot_be_read_caps_stay(scene: Scene) -> None:
    await scene.run("a", G0, "400")
    async with scene.agent():
        await until(lambda: scene.limits == [400, 700], "the annotation")
        assert scene.kubelet is not None
        await scene.kubelet.stop()
        await scene.kube.remove("", "pods", "ns", "a")
        await asyncio.sleep(0.3)
        assert scene.limits == [400, 700]


async def test_after_a_crash_only_what_was_ours_is_ever_given_back(scene: Scene) -> None:
    await scene.run("a", G0, "400")
    async with scene.agent():
        await until(lambda: scene.limits == [400, 700], "the annotation")
    await scene.end("a")
    scene.driver.set_limit(G1, 444_000)
    await scene.run("tenant", G0, None)
    await scene.run("other", G1, None)
    async with scene.agent():
        await until(lambda: scene.limits == [700, 444], "our GPU to be given back, the other left alone")


async def test_a_state_file_that_cannot_be_read_is_kept_and_restores_nothing(scene: Scene) -> None:
    scene.state_file.parent.mkdir()
    scene.state_file.write_text("{broken")
    scene.driver.set_limit(G0, 400_000)
    await scene.run("tenant", G0, None)
    await scene.run("a", G1, "300")
    async with scene.agent():
        await until(lambda: scene.limits == [400, 300], "the annotation")
    assert scene.state_file.read_text() == "{broken"


@pytest.mark.parametrize(("on_exit", "limits"), [(OnExit.KEEP, [400, 700]), (OnExit.RESTORE, [700, 700])])
async def test_an_orderly_stop_keeps_or_restores_as_configured(
    scene: Scene, on_exit: OnExit, limits: list[int]
) -> None:
    await scene.run("a", G0, "400")
    async with scene.agent(on_exit):
        await until(lambda: scene.limits == [400, 700], "the annotation")
    assert scene.limits == limits


async def test_without_a_kubelet_processes_show_who_uses_a_gpu(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    uid = "0b7632a2-a56e-4278-987a-22de18008dbe"
    process(tmp_path / "proc", 4711, group=f"0::/kubepods/pod{uid}/{'9' * 64}")
    async with KubernetesDouble() as kube:
        scene = Scene(tmp_path, kube, None)
        scene.driver.gpus[G1].pids = (4711,)
        await scene.run("a", None, "400", uid=uid)
        async with scene.agent() as service:
            await until(lambda: scene.limits == [700, 400], "the annotation")
            assert service.gpu_owners.owners[G1].pod == "ns/a"


async def test_under_a_planner_the_annotation_is_one_more_upper_bound(scene: Scene) -> None:
    await scene.run("a", G0, "400")
    async with scene.agent(alone=False) as service:
        service.hardware.write_patience_s = 30.0  # What a decision did is asserted right after it.
        await until(lambda: scene.limits == [400, 700], "what was found to be lowered to the bound")
        caps = (
            target(G0, 600_000, 200_000),
            target(G1, 600_000, 200_000),
        )
        _, report = await service.reconciler.decide(CapDecision(1, 0, "one", 60.0, caps))
        assert scene.limits == [400, 600]
        assert {gpu.gpu: gpu.enforced_mw for gpu in report.gpus} == {G0: 400_000, G1: 600_000}
        caps = (
            target(G0, 300_000, 200_000),
            target(G1, 600_000, 200_000),
        )
        await service.reconciler.decide(CapDecision(1, 1, "one", 60.0, caps))
        assert scene.limits == [300, 600]


async def test_a_foreign_value_is_an_event_on_the_node(scene: Scene) -> None:
    async with scene.agent() as service:
        await scene.run("a", G0, "400")
        await until(lambda: service.reconciler.state.applied_id >= 0 and scene.limits == [400, 700], "the annotation")
        scene.driver.set_limit(G0, 650_000)
        await until(lambda: bool(scene.kube.objects("", "events")), "the event")
        await until(lambda: scene.limits == [400, 700], "the cap to be set again")
    event = scene.kube.objects("", "events")[0]
    assert (event["reason"], event["involvedObject"]["kind"]) == ("ForeignGpuPowerLimit", "Node")
    assert event["message"] == f"GPU {G0}: another process set 650 W where the agent had set 400 W"
