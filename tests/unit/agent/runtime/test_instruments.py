"""METRICS.md is generated from the table, and the page shows nothing that is not in the table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

import agent
from agent.drivers.simulated import SimulatedDriver
from agent.ports import DriverErrorKind, GpuOwner
from agent.runtime.agent_metrics import METRICS, page
from agent.runtime.instruments import AgentInstruments, samples
from agent.runtime.service import PowerAgentService
from agent.runtime.settings import PowerAgentSettings
from tests.contract.bus import until


class Owners:
    def __init__(self) -> None:
        self.pod = 'ns/"odd"'
        self.container = "main"

    async def owners(self) -> dict[str, GpuOwner]:
        return {"GPU-n-00": GpuOwner("d", "decode", "decode", "w", self.pod, container=self.container)}


@asynccontextmanager
async def running(owners: Owners) -> AsyncIterator[PowerAgentService]:
    """An agent with two GPUs, of which the second cannot be read."""
    driver = SimulatedDriver.of("n", 2)
    driver.gpus["GPU-n-01"].faults = {"read": DriverErrorKind.GPU_LOST}
    service = PowerAgentService(PowerAgentSettings(node="n", telemetry_interval_s=0.02), None, driver, owners)
    task = asyncio.create_task(service.run())
    try:
        await until(lambda: bool(service.gpu_owners.owners), "the owners of the GPUs")
        yield service
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def shown(text: bytes) -> Iterator[tuple[str, Sample]]:
    """(type, sample) as Prometheus reads the page."""
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            yield family.type, sample


def test_metrics_md_is_generated_from_the_table() -> None:
    written = (Path(agent.__file__).parent / "METRICS.md").read_text()
    assert written == page(), "run: python -m agent.runtime.agent_metrics > agent/METRICS.md"


async def test_every_sample_is_in_the_table_with_its_type_and_its_labels() -> None:
    known = {metric.name: metric for metric in METRICS}
    async with running(Owners()) as service:
        found = list(shown(AgentInstruments(service).page()))
        assert {sample.name for _, sample in found} == {sample.name for sample in samples(service)}
    assert len(found) > 30
    for kind, sample in found:
        assert kind == known[sample.name].kind, sample.name
        assert set(sample.labels) == set(known[sample.name].labels), sample.name


async def test_an_unknown_value_is_left_out_and_a_label_is_escaped() -> None:
    async with running(Owners()) as service:
        found = [sample for _, sample in shown(AgentInstruments(service).page())]
    draws = [sample.labels["UUID"] for sample in found if sample.name == "wattscale_gpu_draw_watts"]
    assert draws == ["GPU-n-00"]
    assert all(sample.labels["pod"] == '"odd"' for sample in found if sample.labels.get("UUID") == "GPU-n-00")
    health = {s.labels["state"]: s.value for s in found if s.labels.get("UUID") == "GPU-n-01" and "state" in s.labels}
    assert health == {"ok": 0.0, "uncappable": 0.0, "quarantined": 1.0, "unknown": 0.0}
    assert "wattscale_agent_bus_connected" not in {sample.name for sample in found}


async def test_pods_that_have_gone_leave_the_page_and_the_memory() -> None:
    owners = Owners()
    async with running(owners) as service:
        instruments = AgentInstruments(service)
        for number in range(2_100):
            # More label sets than the SDK keeps: above its limit it would merge them into one without labels.
            service.gpu_owners.owners = {"GPU-n-00": GpuOwner("d", "decode", "decode", "w", f"ns/pod-{number}")}
            if number % 100 == 0 or number > 2_090:
                text = instruments.page()
                assert {s.labels["pod"] for _, s in shown(text) if s.name == "wattscale_gpu_draw_watts"} == {
                    f"pod-{number}"
                }
        assert b"overflow" not in text
        assert b'"pod-0"' not in text


async def test_a_gpus_metrics_carry_the_labels_of_dcgm_exporter_with_its_values() -> None:
    """dcgm-exporter's line for the same GPU: the names are its own, and so are the forms of the values."""
    async with running(Owners()) as service:
        found = [sample for _, sample in shown(AgentInstruments(service).page())]
        model = service.view.views()["GPU-n-00"].info.model
    of_gpu = [sample for sample in found if sample.labels.get("UUID") == "GPU-n-00"]
    line = {"gpu": "0", "UUID": "GPU-n-00", "device": "nvidia0", "modelName": model, "Hostname": "n"}
    line |= {"namespace": "ns", "pod": '"odd"', "container": "main"}
    caps = {f"wattscale_gpu_{name}_watts" for name in ("requested", "enforced")}
    assert caps <= {sample.name for sample in of_gpu}
    for sample in of_gpu:
        assert line.items() <= sample.labels.items(), sample.name
    free = next(sample for sample in found if sample.labels.get("UUID") == "GPU-n-01")
    assert (free.labels["namespace"], free.labels["pod"], free.labels["container"]) == ("", "", "")
