"""GPUs as files that engines share, behind the port of a GPU driver."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from agent.ports import DriverError, DriverErrorKind, GpuInfo, GpuReading
from deploy.engine.shared_gpu import SharedGpu


class SharedGpuDriver:
    """A ``GpuDriver``. ``wrote``: called with a GPU and the limit that a write put in force, within ``lock``.

    One lock for several drivers makes a sum over all of them that of one instant.
    """

    def __init__(
        self,
        gpus: Iterable[SharedGpu],
        wrote: Callable[[str, int], None] = lambda _, __: None,
        lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self._gpus = {gpu.uuid: gpu for gpu in gpus}
        self._wrote = wrote
        self._lock = lock or nullcontext()

    def enumerate(self) -> Sequence[GpuInfo]:
        """All GPUs, in the order given."""
        cards = [(uuid, gpu.read().card) for uuid, gpu in self._gpus.items()]
        return [
            GpuInfo(uuid, index, card.model, card.default_mw, card.min_mw, card.max_mw)
            for index, (uuid, card) in enumerate(cards)
        ]

    def failed(self) -> Mapping[str, DriverError]:
        """None: a file that could be mapped answers."""
        return {}

    def read(self, gpu: str) -> GpuReading:
        """A GPU's state. Raises DriverError for a name that is not there."""
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
        """Set a limit; the card clamps it. Raises DriverError for a name that is not there."""
        known = self._known(gpu)
        with self._lock:
            self._wrote(gpu, known.set_limit(mw))

    def close(self) -> None:
        """Nothing to release: who opened the files closes them, and limits stay as they are."""

    def _known(self, gpu: str) -> SharedGpu:
        known = self._gpus.get(gpu)
        if known is None:
            raise DriverError(DriverErrorKind.NO_SUCH_GPU, f"no GPU {gpu} on this node", call="handle", gpu=gpu)
        return known
