"""The starter of a real API server: a real etcd, and a stand-in for the binary that takes its options and answers."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
from pathlib import Path

import pytest

from tests.contract.dynamo.etcd_process import etcd_binary
from tests.running_processes import gone
from tests.shared_data import ROOT
from tests.tools.kube_apiserver import KubeApiServer

STAND_IN = """
import http.server, pathlib, ssl, subprocess, sys
def given(option): return sys.argv[sys.argv.index(option) + 1]
folder = pathlib.Path(given("--cert-dir"))
folder.mkdir(exist_ok=True)
made = ("-keyout", str(folder / "key"), "-out", str(folder / "certificate"))
new = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x")
subprocess.run((*new, *made), check=True, capture_output=True)
class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"major": "1", "minor": "33+"}')
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer((given("--bind-address"), int(given("--secure-port"))), Answers)
tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
tls.load_cert_chain(folder / "certificate", folder / "key")
server.socket = tls.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture
def server(tmp_path: Path) -> KubeApiServer:
    etcd_binary()
    binary = tmp_path / "kube-apiserver"
    binary.write_text(f"#!{sys.executable}\n{STAND_IN}")
    binary.chmod(0o755)
    folder = tmp_path / "stored"
    folder.mkdir()
    return KubeApiServer(binary, folder)


def test_it_is_replaced_without_its_history_and_leaves_nothing(server: KubeApiServer) -> None:
    try:
        server.start()
        assert server.version == (1, 33)
        first = server.pids
        old, *_ = [server.write_to_etcd("a") for _ in range(3)]
        server.replace()
        assert gone(first[1])
        with pytest.raises(urllib.error.HTTPError) as caught:
            server.read_from_etcd("a", old)
        assert b"compacted" in caught.value.read()
    finally:
        server.stop()
    assert all(gone(pid) for pid in (*first, *server.pids))


OWNER = """
import pathlib, sys, time
from tests.tools.kube_apiserver import KubeApiServer
server = KubeApiServer(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
server.start()
print(*server.pids, flush=True)
time.sleep(600)
"""


@pytest.mark.usefixtures("server")
def test_it_ends_when_the_tests_are_killed(tmp_path: Path) -> None:
    words = (sys.executable, "-c", OWNER, str(tmp_path / "kube-apiserver"), str(tmp_path / "stored"))
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(word) for word in owner.stdout.readline().split()]
        owner.kill()
    assert len(pids) == 2
    deadline_s = time.monotonic() + 30
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline_s, "a server outlived the tests"
        time.sleep(0.02)


def test_a_server_that_ends_at_once_is_named_with_its_last_words(tmp_path: Path, server: KubeApiServer) -> None:
    (tmp_path / "kube-apiserver").write_text("#!/bin/sh\necho 'unknown flag: --secure-port' >&2; exit 1\n")
    try:
        with pytest.raises(AssertionError, match=r"it ended\n(.*\n)*unknown flag: --secure-port"):
            server.start()
    finally:
        server.stop()
