"""One node's GPUs as files that engines share, behind the port of a GPU driver."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from agent.ports import DriverError, DriverErrorKind, GpuInfo, GpuReading
from deploy.demo.gpus import HardwareMeter
from deploy.engine.shared_gpu import SharedGpu


class SharedGpuDriver:
    """The GPUs of one node. ``lock``: one for all nodes, so that the meter's sum is that of one instant."""

    def __init__(self, gpus: Sequence[SharedGpu], meter: HardwareMeter, lock: threading.Lock) -> None:
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self._meter = meter
        self._lock = lock

    def enumerate(self) -> Sequence[GpuInfo]:
        cards = [(uuid, gpu.read().card) for uuid, gpu in self._gpus.items()]
        return [
            GpuInfo(uuid, index, card.model, card.default_mw, card.min_mw, card.max_mw)
            for index, (uuid, card) in enumerate(cards)
        ]

    def failed(self) -> Mapping[str, DriverError]:
        return {}

    def read(self, gpu: str) -> GpuReading:
        state = self._known(gpu).read()
        return GpuReading(
            gpu=gpu,
            requested_mw=state.requested_mw,
            enforced_mw=state.enforced_mw,
            draw_mw=round(state.draw_mw),
            energy_mj=round(state.energy_mj),
            throttle_reasons=("sw_power_cap",) if state.load_mw > state.enforced_mw else (),
        )

    def set_limit(self, gpu: str, mw: int) -> None:
        known = self._known(gpu)
        with self._lock:
            self._meter.wrote(gpu, known.set_limit(mw))

    def close(self) -> None:
        """Nothing to release: limits stay as they are."""

    def _known(self, gpu: str) -> SharedGpu:
        known = self._gpus.get(gpu)
        if known is None:
            raise DriverError(DriverErrorKind.NO_SUCH_GPU, f"no GPU {gpu} on this node", call="handle", gpu=gpu)
        return known
