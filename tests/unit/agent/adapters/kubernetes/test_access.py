"""Ways to the API server: a pod's service account, kubeconfig files, and what is missing when there is none."""

from __future__ import annotations

import base64
import ssl
import subprocess
from pathlib import Path

import pytest

from agent.adapters.kubernetes.access import NoAccessError, find_access, from_kubeconfig, from_service_account

CONFIG = """
current-context: c
contexts:
- name: c
  context: {{cluster: k, user: u, namespace: mine}}
clusters:
- name: k
  cluster: {cluster}
users:
- name: u
  user: {user}
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    try:
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-keyout",
                key,
                "-out",
                cert,
                "-days",
                "2",
                "-subj",
                "/CN=x",
            ],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("no openssl on this machine")
    return cert, key


def write(folder: Path, cluster: str, user: str) -> Path:
    path = folder / "config"
    path.write_text(CONFIG.format(cluster=cluster, user=user))
    return path


def test_a_service_account_is_read_from_its_folder_and_its_token_each_time(
    tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "namespace").write_text("ns")
    (tmp_path / "ca.crt").write_text(certificate[0].read_text())
    environment = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    access = from_service_account(environment, tmp_path)
    assert (access.server, access.namespace) == ("https://[fd00::1]:6443", "ns")
    assert access.headers() == {"Authorization": "Bearer first"}
    (tmp_path / "token").write_text("second")
    assert access.headers() == {"Authorization": "Bearer second"}
    assert "first" not in repr(access)


def test_a_kubeconfig_with_a_token_and_a_plain_server(tmp_path: Path) -> None:
    access = from_kubeconfig(write(tmp_path, "{server: 'http://h:1/'}", "{token: t}"))
    assert (access.server, access.namespace, access.tls) == ("http://h:1", "mine", None)
    assert access.headers() == {"Authorization": "Bearer t"}
    assert "token='t'" not in repr(access)


def test_certificates_as_files_and_as_data(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    data = {name: base64.b64encode(path.read_bytes()).decode() for name, path in (("c", cert), ("k", key))}
    by_data = from_kubeconfig(
        write(
            tmp_path,
            f"{{server: 'https://h:1', certificate-authority-data: {data['c']}}}",
            f"{{client-certificate-data: {data['c']}, client-key-data: {data['k']}}}",
        )
    )
    by_file = from_kubeconfig(
        write(
            tmp_path,
            f"{{server: 'https://h:1', certificate-authority: {cert}}}",
            f"{{client-certificate: {cert}, client-key: {key}}}",
        )
    )
    for access in (by_data, by_file):
        assert access.tls is not None
        assert access.tls.verify_mode is ssl.CERT_REQUIRED
        assert len(access.tls.get_ca_certs()) >= 1


@pytest.mark.parametrize(
    ("cluster", "user", "line"),
    [
        ("{server: 'http://h'}", "{exec: {command: aws}}", "needs a plugin"),
        ("{}", "{token: t}", "KeyError"),
        ("{server: 'https://h', certificate-authority-data: '!'}", "{token: t}", "not base64"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, cluster: str, user: str, line: str) -> None:
    with pytest.raises(NoAccessError, match=line):
        from_kubeconfig(write(tmp_path, cluster, user))


def test_the_search_goes_from_the_named_file_to_the_pod_to_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, "{server: 'http://h:1'}", "{token: t}")
    assert find_access(path, {"KUBERNETES_SERVICE_HOST": "x"}).server == "http://h:1"
    assert find_access(None, {"KUBECONFIG": str(path)}).server == "http://h:1"
    with pytest.raises(NoAccessError, match="not in a pod"):
        find_access(None, {})
    with pytest.raises(NoAccessError, match="kubeconfig"):
        find_access(tmp_path / "absent", {})
