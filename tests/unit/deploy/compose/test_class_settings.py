"""A deployment's class of service: its form, and how many a site may have."""

from __future__ import annotations

from pathlib import Path

from deploy.compose.core_config import planner_config
from deploy.compose.planner_settings import load
from tests.unit.deploy.compose.test_planner_settings import CHAT, changed, file, good, problems, save

__all__ = ["file"]


def test_a_class_of_service_reaches_the_core_and_has_the_form_of_a_label(file: Path) -> None:
    config = planner_config(load(changed(file, service_class="interactive")).settings)
    assert config.deployments[CHAT].service_class == "interactive"
    for wrong in ("Interactive", "two words", "-x", "x" * 33, ""):
        lines = problems(changed(file, service_class=wrong))
        assert any("service_class" in line and "lower-case" in line for line in lines), lines


def test_classes_of_service_are_few_because_each_record_of_a_shortage_names_them_all(file: Path) -> None:
    block = good(file.parent / "profile")
    one = block["deployments"]["prod-chat"]
    block["deployments"] = {f"chat-{index}": {**one, "service_class": f"c{index}"} for index in range(17)}
    assert problems(save(file.parent, block)) == (
        "deployments.*.service_class: 17 classes on site row-1, at most 16; name kinds of load, not deployments",
    )
