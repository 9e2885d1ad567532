"""A password in an address never reaches the output, whichever command or setting takes the address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.command_line import run
from tests.empty_home import no_bus_known
from tests.property.deploy.commands import Command, commands

SECRET = "S3CRET-w0rd"
SHAPES = (
    f"nats://user:{SECRET}@127.0.0.1:1",
    f"nats://{SECRET}@127.0.0.1:1",
    f"user:{SECRET}@127.0.0.1:1",
    f"nats://127.0.0.1:1,nats://user:{SECRET}@127.0.0.1:2",
    f"nats://user:{SECRET}@[::1",
    f"nats://user:{SECRET}@127.0.0.1:port",
    f"tls://a:{SECRET}@b:c@127.0.0.1:1",
    f"http://user:{SECRET}@127.0.0.1:1",
    f"user:{SECRET}@",
)
ON_A_BUS = [one for one in commands() if one.takes("nats_url")]
WITH_SETTINGS = [one for one in commands() if one.takes("overrides") and one.words[0] != "replay"]
SETTINGS = ("bus.servers", "prometheus.url", "otlp.endpoint", "deployments.d.metrics.urls")


@pytest.fixture(scope="module", autouse=True)
def no_run_on_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Else a command without an address asks the bus of a `wattscale up` that somebody runs beside the tests."""
    with pytest.MonkeyPatch.context() as patch:
        no_bus_known(patch, tmp_path_factory.mktemp("home"))
        yield


def needed(command: Command) -> tuple[str, ...]:
    return ("--from-bus",) if command.words == ("replay",) else command.needed


@pytest.mark.parametrize("command", ON_A_BUS, ids=lambda one: " ".join(one.words))
@given(shape=st.sampled_from(SHAPES))
def test_of_an_address(command: Command, shape: str) -> None:
    done = run(*command.words, *needed(command), "--nats-url", shape)
    assert SECRET not in done.out + done.err
    assert done.code == 2
    # `replay` lists what is wrong with its settings first.
    assert command.words == ("replay",) or done.one_line()


@pytest.mark.parametrize("shape", SHAPES)
def test_of_an_address_in_the_environment(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTSCALE_NATS_URL", shape)
    done = run("status")
    assert (done.code, SECRET in done.one_line()) == (2, False)


@pytest.mark.parametrize("shape", SHAPES)
def test_of_the_agents_address(shape: str) -> None:
    for words in (("agent", "power"), ("agent", "check")):
        done = run(*words, "--driver", "simulated", "--node", "n", "--nats-url", shape)
        assert (done.code, SECRET in done.one_line()) == (2, False)


@pytest.mark.parametrize("command", WITH_SETTINGS, ids=lambda one: " ".join(one.words))
@given(
    shape=st.sampled_from(SHAPES), setting=st.sampled_from(SETTINGS), quoted=st.sampled_from(("{}", "'{}'", "['{}']"))
)
def test_of_a_setting(command: Command, shape: str, setting: str, quoted: str) -> None:
    # A site and a deployment of that name are missing on purpose: nothing is started.
    done = run(*command.words, *command.needed, "--set", f"{setting}={quoted.format(shape)}")
    assert SECRET not in done.out + done.err
    assert done.code in (0, 2)
