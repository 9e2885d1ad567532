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
