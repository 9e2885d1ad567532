"""The settings of the local connector: what is refused, with the setting's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.connectors.local.worker_records import StateFolderError, WorkerBook, WorkerRecord, WorkerRecords
from deploy.compose.connectors.local_service import load_local
from deploy.compose.settings_layers import SettingsError

GOOD = """
deployment: default-demo
nats: {servers: ["nats://127.0.0.1:4222"]}
state_folder: /tmp/nowhere
gpus: ["0", "1"]
pools:
  decode: {command: [engine, --port, "{port}"], drain_path: /drain}
"""


def load(folder: Path, text: str):
    (folder / "connector.yaml").write_text(text)
    return load_local(folder / "connector.yaml", {}).settings


def test_a_pool_takes_its_role_from_its_name(tmp_path):
    settings = load(tmp_path, GOOD)
    assert settings.role_of("decode") == "decode"
    assert settings.pools["decode"].rules().drain_s == 30.0


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("decode:", "small:", "pools.small: its name is not a role"),
        ('"{port}"', '"80"', "so no worker gets its own"),
        ('"{port}"', '"{prot}"', "{prot} stands for nothing"),
        ('gpus: ["0", "1"]', "gpus: []", "a worker takes 1 GPUs; gpus names 0"),
        ('gpus: ["0", "1"]', 'gpus: ["0", "0"]', "a GPU is named twice"),
        ("drain_path: /drain", "drain_path: drain", "drain_path"),
        ("drain_path: /drain", "drain_pat: /drain", "did you mean"),
        ("deployment: default-demo", "", "deployment: must be set"),
        ("state_folder: /tmp/nowhere", "state_folder: /tmp/nowhere\nfirst_port: 65500", "go beyond port 65535"),
    ],
)
def test_what_cannot_work_is_refused_by_name(tmp_path, old, new, part):
    with pytest.raises(SettingsError) as refused:
        load(tmp_path, GOOD.replace(old, new))
    assert part in "\n".join(refused.value.problems)


def test_a_record_comes_back_and_one_of_an_earlier_boot_names_no_worker(tmp_path):
    records = WorkerRecords(tmp_path)
    book = records.open("boot-1")
    book.wanted["decode"] = 2
    book.workers.append(WorkerRecord("w", "decode", 9400, ("0",), "mark", 5.0, pid=7, start_ticks=9))
    records.store(book)
    assert WorkerRecords(tmp_path).open("boot-1") == book
    assert WorkerRecords(tmp_path).open("boot-2") == WorkerBook("boot-2", {"decode": 2})


def test_a_record_that_cannot_be_read_is_refused_and_stays(tmp_path):
    (tmp_path / "workers.json").write_text("{}")
    with pytest.raises(StateFolderError, match="not a record of workers"):
        WorkerRecords(tmp_path).open("boot-1")
    assert (tmp_path / "workers.json").read_text() == "{}"
