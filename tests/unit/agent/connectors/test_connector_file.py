"""Settings of the virtual connector that would have no effect are refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from agent.connectors.bus_claims import CLAIM_TTL_S
from agent.connectors.connector_file import ConnectorFile


def test_the_term_of_a_claim_on_the_bus_is_refused_where_there_is_none() -> None:
    pinning = {"deployment": "prod", "direction": "from-dynamo"}
    with pytest.raises(ValidationError, match="claim_ttl_s: from-dynamo claims the namespace in etcd alone"):
        ConnectorFile.model_validate({**pinning, "claim_ttl_s": 5})
    assert ConnectorFile.model_validate(pinning).claim_ttl_s == CLAIM_TTL_S
    assert ConnectorFile.model_validate({"deployment": "prod", "claim_ttl_s": 5}).claim_ttl_s == 5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"store": "redis"}, "model: name the model"),
        ({"store": "redis", "model": "m", "etcd": {}}, "etcd has no effect with store: redis"),
        ({"redis": {}}, "redis has no effect with store: etcd"),
        ({"model": "m"}, "model has no effect with store: etcd"),
        ({"store": "redis", "model": "m", "direction": "from-dynamo"}, "from-dynamo needs etcd"),
        ({"store": "redis", "model": "m", "namespace": "a}b"}, "has a brace"),
        ({"store": "redis", "model": "m", "redis": {"url": "redis://me:secret@host"}}, "host holds credentials"),
        ({"store": "redis", "model": "m", "redis": {"url": "host:6379"}}, "an address is redis://HOST:PORT/DATABASE"),
        ({"store": "redis", "model": "m", "redis": {"url": "redis://host:nine"}}, "Port could not be cast"),
        ({"store": "redis", "model": "m", "redis": {"tls_ca_file": "ca.pem"}}, "begins with redis://"),
        ({"store": "redis", "model": "m", "redis": {"tls_key_file": "k"}}, "belong together"),
    ],
    ids=str,
)
def test_what_does_not_fit_the_store_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ConnectorFile.model_validate({"deployment": "prod", **changes})
    sentences = [one["msg"] for one in refused.value.errors()]
    assert words in " ".join(sentences)
    assert "secret" not in " ".join(sentences)


def test_an_address_of_redis_names_host_port_and_database() -> None:
    redis = {"url": "rediss://cache.prod:6380/3", "tls_ca_file": "ca.pem"}
    read = ConnectorFile.model_validate({"deployment": "prod", "store": "redis", "model": "M/x", "redis": redis}).redis
    assert (read.address.hostname, read.address.port, read.database) == ("cache.prod", 6380, 3)
