"""How `wattscale request apply` asks for a profile."""

from __future__ import annotations

from pathlib import Path

from deploy.requests.local_profiling import ApplyOptions, profile_words
from deploy.requests.request_folder import RequestFolder
from planner.profiler.requests.request_manifest import parse_request
from tests.unit.planner.profiler.requests.request_examples import OWN, with_value


def test_an_offline_request_is_estimated_within_the_limits_that_are_given(tmp_path: Path) -> None:
    request = parse_request(with_value(OWN, "spec.searchStrategy", "rapid"))
    options = ApplyOptions(
        endpoint=None,
        config=None,
        tps="1",
        gpus=None,
        quick=False,
        max_kv_tokens=4000,
        max_in_flight=2,
        bus="",
        first_port=0,
    )
    words = profile_words(RequestFolder(tmp_path), request, options)
    assert "--offline" in words
    assert words[words.index("--max-kv-tokens") + 1] == "4000"
    assert words[words.index("--max-in-flight") + 1] == "2"
