"""What each forecast model learned, written into a record and read back by the next leader."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from planner.adapters import checkpoint
from planner.core.forecast import registry
from planner.core.sizing import load_forecast

T0_S = 1000.0


@dataclass(frozen=True, slots=True)
class Newest:
    """A model that only the registry knows: the newest value, in a part of its own."""

    @dataclass(frozen=True, slots=True)
    class Inner:
        value: float = 0.0

    parts: tuple[Inner, ...] = (Inner(),)
    ready: bool = True

    @property
    def name(self) -> str:
        return "newest"

    def observe(self, t_s: float, y: float) -> Newest:
        return Newest((Newest.Inner(y),))

    def mean(self, horizon_s: float) -> float:
        return self.parts[0].value


def back(name: str) -> tuple[object, object]:
    band = registry.make(name, 0.95, 60.0, {})
    for step in range(100):
        band = band.observe(T0_S + 30.0 * step, 10.0 + step % 7)
    kept = json.loads(json.dumps(checkpoint.bands({"requests": band}), allow_nan=False))
    return checkpoint.bands_back(kept, {})["requests"], band


@pytest.mark.parametrize("wrapped", ["", *(f"+{wrapper}" for wrapper in registry.WRAPPERS), "+log1p+day"])
@pytest.mark.parametrize("name", registry.NAMES)
def test_each_built_in_model_survives_a_record(name: str, wrapped: str) -> None:
    found, learned = back(name + wrapped)
    assert found == learned


def test_a_model_in_the_registry_needs_no_second_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILT_IN, "newest", Newest())
    found, learned = back("newest")
    assert found == learned


def test_forecasts_kept_under_their_former_names_come_back() -> None:
    now = {name: registry.make("ewma", 0.9, 60.0, {}).observe(T0_S, 3.0) for name in load_forecast.QUANTITIES}
    kept = checkpoint.bands(now)
    assert kept is not None
    former = dict(zip(("num_req", "isl", "osl"), kept.values(), strict=True))
    assert checkpoint.bands_back(former, {}) == now


def test_an_unknown_model_is_refused_by_name() -> None:
    with pytest.raises(checkpoint.NotPlainError, match="Oracle"):
        checkpoint.bands_back({"requests": {"kind": "Oracle"}}, {})
