"""Who asks: the front proxy's certificate first, then its headers."""

from __future__ import annotations

from typing import Any

import pytest

from agent.core.scaling.autoscaler.external_metrics import MetricRefusedError
from agent.core.scaling.autoscaler.front_proxy import (
    BadFrontProxyError,
    FrontProxy,
    access_review,
    common_name,
    front_proxy_of,
    identified,
)

DATA = {
    "requestheader-client-ca-file": "-----BEGIN CERTIFICATE-----",
    "requestheader-allowed-names": '["front-proxy-client"]',
    "requestheader-username-headers": '["X-Remote-User"]',
    "requestheader-group-headers": '["X-Remote-Group"]',
    "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
}
PROXY = front_proxy_of({"data": DATA})
NAME = "front-proxy-client"


def test_the_config_map_is_read() -> None:
    assert FrontProxy("-----BEGIN CERTIFICATE-----", (NAME,)) == PROXY


@pytest.mark.parametrize(
    "change",
    [
        {"requestheader-client-ca-file": ""},
        {"requestheader-client-ca-file": None},
        {"requestheader-username-headers": "[]"},
        {"requestheader-allowed-names": "front-proxy-client"},
        {"requestheader-allowed-names": '{"a": 1}'},
        {"requestheader-allowed-names": '[""]'},
    ],
)
def test_a_config_map_that_names_no_front_proxy_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadFrontProxyError):
        front_proxy_of({"data": {**DATA, **change}})
    with pytest.raises(BadFrontProxyError):
        front_proxy_of({})


def test_headers_without_the_certificate_name_no_user() -> None:
    headers = [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")]
    for name in (None, "somebody-else", ""):
        with pytest.raises(MetricRefusedError) as caught:
            identified(PROXY, name, headers)
        assert caught.value.status == 401


def test_without_allowed_names_any_certificate_of_the_authority_will_do_but_none_will_not() -> None:
    proxy = FrontProxy("ca")
    assert identified(proxy, "any", [("X-Remote-User", "u")]).user == "u"
    with pytest.raises(MetricRefusedError):
        identified(proxy, None, [("X-Remote-User", "u")])


def test_user_groups_and_extra_are_taken_from_the_headers() -> None:
    headers = [
        ("x-remote-user", "hpa"),
        ("X-Remote-Group", "a"),
        ("X-Remote-Group", "b"),
        ("X-Remote-Extra-Scopes%2FOf", "one"),
        ("X-Remote-Extra-scopes%2fof", "two"),
    ]
    who = identified(PROXY, NAME, headers)
    assert (who.user, who.groups) == ("hpa", ("a", "b", "system:authenticated"))
    assert who.extra == {"scopes/of": ("one", "two")}
    spec = access_review(who, "ns", "wattscale-decode")["spec"]
    assert spec["resourceAttributes"]["verb"] == "list"
    assert spec["groups"] == ["a", "b", "system:authenticated"]
    assert access_review(who, "", "")["spec"]["nonResourceAttributes"]["verb"] == "get"


def test_no_user_and_the_anonymous_one_are_not_authenticated() -> None:
    with pytest.raises(MetricRefusedError):
        identified(PROXY, NAME, [("X-Remote-Group", "system:masters")])
    who = identified(PROXY, NAME, [("X-Remote-User", "system:anonymous"), ("X-Remote-Group", "system:unauthenticated")])
    assert who.groups == ("system:unauthenticated",)


def test_the_common_name_of_a_certificate() -> None:
    assert common_name(None) is None
    assert common_name({}) is None
    assert common_name({"subject": ((("organizationName", "o"),), (("commonName", "n"),))}) == "n"
    assert common_name({"subject": ((("organizationName", "o"),),)}) == ""
