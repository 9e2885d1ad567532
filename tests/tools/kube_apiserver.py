"""A real kube-apiserver with its etcd on loopback, for the tests that otherwise know the double only.

    WATTSCALE_TEST_APISERVER=/path/of/kube-apiserver pytest tests/contract/kubernetes

It has no controllers and no nodes: what those do, the tests do through the API. RBAC decides about every account; the
administrator is a token in ``system:masters``. One server is started per process, at its first use, and ends with it,
also when that is killed.
"""

from __future__ import annotations

import atexit
import base64
import functools
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.free_ports import free_port
from tests.kubeconfig_file import kubeconfig
from tests.running_processes import ends_with_this_process, let_live

VARIABLE = "WATTSCALE_TEST_APISERVER"
FIRST_WITH_AUTOSCALING_V2 = (1, 23)
STAND_BEFORE = Path(__file__).parent / "older_kubernetes.py"
ADMINISTRATOR = "administrator-of-the-tests"
READY_S = 120.0
STOPPED_S = 30.0


class KubeApiServer:
    """Its processes, with everything that they store in ``folder``."""

    def __init__(self, binary: Path, folder: Path) -> None:
        self._binary, self._folder = binary, folder
        self._etcd_url, self._peer_url = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self._port = free_port()
        self.url = f"https://127.0.0.1:{self._port}"
        """Where the tests reach it: of an older one not its own port (`older_kubernetes`)."""
        self._etcd: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._stand_before: subprocess.Popen[bytes] | None = None
        self._watchers: dict[int, subprocess.Popen[bytes]] = {}
        """By process id: each ends that process when this one ends."""

    @property
    def administrator(self) -> Path:
        """A kubeconfig that may do everything."""
        return kubeconfig(self._folder / "administrator.json", self.url, ADMINISTRATOR)

    @property
    def version(self) -> tuple[int, int]:
        """(major, minor) of Kubernetes."""
        found = json.loads(self._read("/version"))
        return int(found["major"]), int(found["minor"].rstrip("+"))

    @property
    def pids(self) -> tuple[int, ...]:
        """Of etcd, the API server and what stands before it, as far as they were started."""
        return tuple(one.pid for one in (self._etcd, self._server, self._stand_before) if one is not None)

    def start(self) -> None:
        """All processes, ready."""
        key = self._folder / "accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (self._folder / "tokens.csv").write_text(f"{ADMINISTRATOR},administrator,administrator,system:masters\n")
        self._etcd = self._spawn("etcd.log", *self._etcd_command())
        self._wait(f"{self._etcd_url}/health", self._etcd, "etcd.log")
        self.start_again()
        if self.version < FIRST_WITH_AUTOSCALING_V2:
            port, certificates = free_port(), self._folder / "certificates"
            files = (str(certificates / "apiserver.crt"), str(certificates / "apiserver.key"))
            words = (sys.executable, str(STAND_BEFORE), str(port), self.url, *files)
            self._stand_before = self._spawn("before.log", *words)
            self.url = f"https://127.0.0.1:{port}"
            self._wait(f"{self.url}/readyz", self._stand_before, "before.log")

    def start_again(self) -> None:
        """The API server alone, after ``kill``: at the same address, over the same store."""
        self._server = self._spawn("apiserver.log", *self._server_command())
        self._wait(f"{self.url}/readyz", self._server, "apiserver.log")

    def kill(self) -> None:
        """SIGKILL to the API server; etcd stays."""
        self._end(self._server)

    def replace(self) -> None:
        """Kill the API server and start it again without the history: every watch from before is answered 410."""
        self.kill()
        self.forget_history()
        self.start_again()

    def stop(self) -> None:
        """Both, and what they stored."""
        for process in (self._server, self._etcd):
            self._end(process)
        shutil.rmtree(self._folder, ignore_errors=True)

    def forget_history(self) -> None:
        """Compact etcd up to now, so that a watch from before is answered 410 once the server's own memory is gone.

        For a server that is down: one that runs still remembers recent changes by itself.
        """
        at = self._ask_etcd("range", {"key": _encoded("any")})["header"]["revision"]
        self._ask_etcd("compaction", {"revision": at, "physical": True})

    def write_to_etcd(self, key: str) -> int:
        """Write something under a key of etcd; the revision that this made."""
        return int(self._ask_etcd("put", {"key": _encoded(key), "value": ""})["header"]["revision"])

    def read_from_etcd(self, key: str, revision: int) -> None:
        """Read a key as it was at a revision. Raises HTTPError where etcd has forgotten it."""
        self._ask_etcd("range", {"key": _encoded(key), "revision": revision})

    def _ask_etcd(self, about: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(f"{self._etcd_url}/v3/kv/{about}", data=json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def _etcd_command(self) -> list[str]:
        found = shutil.which("etcd")
        assert found is not None, f"{VARIABLE} is set, but etcd is missing: install etcd-server"
        return [
            *(found, "--data-dir", str(self._folder / "etcd"), "--log-level", "error"),
            *("--listen-client-urls", self._etcd_url, "--advertise-client-urls", self._etcd_url),
            *("--listen-peer-urls", self._peer_url, "--initial-advertise-peer-urls", self._peer_url),
            *("--initial-cluster", f"default={self._peer_url}"),
        ]

    def _server_command(self) -> list[str]:
        key = str(self._folder / "accounts.key")
        return [
            *(str(self._binary), "--etcd-servers", self._etcd_url, "--cert-dir", str(self._folder / "certificates")),
            *("--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1", "--secure-port", str(self._port)),
            *("--endpoint-reconciler-type", "none", "--service-cluster-ip-range", "10.0.0.0/24"),
            *("--authorization-mode", "RBAC", "--token-auth-file", str(self._folder / "tokens.csv")),
            *("--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", key),
            *("--service-account-signing-key-file", key),
            # It waits for a controller that makes the accounts' secrets.
            *("--disable-admission-plugins", "ServiceAccount"),
        ]

    def _spawn(self, log: str, *command: str) -> subprocess.Popen[bytes]:
        with (self._folder / log).open("ab") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file)
        self._watchers[process.pid] = ends_with_this_process(process.pid)
        return process

    def _end(self, process: subprocess.Popen[bytes] | None) -> None:
        if process is None:
            return
        watcher = self._watchers.pop(process.pid, None)
        if watcher is not None:
            let_live(watcher)
        process.kill()
        process.wait(STOPPED_S)

    def _wait(self, url: str, process: subprocess.Popen[bytes], log: str) -> None:
        deadline_s = time.monotonic() + READY_S
        while True:
            try:
                self._read_url(url)
            except (urllib.error.URLError, OSError) as error:
                ended = process.poll() is not None
                if ended or time.monotonic() > deadline_s:
                    last = (self._folder / log).read_text(errors="replace")[-2000:]
                    raise AssertionError(f"{url}: {'it ended' if ended else error}\n{last}") from error
                time.sleep(0.1)
            else:
                return

    def _read(self, path: str) -> bytes:
        return self._read_url(self.url + path)

    def _read_url(self, url: str) -> bytes:
        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMINISTRATOR}"})
        with urllib.request.urlopen(request, timeout=10, context=tls if url.startswith("https") else None) as answer:
            found: bytes = answer.read()
            return found


def _encoded(key: str) -> str:
    """As etcd's gateway wants it."""
    return base64.b64encode(key.encode()).decode()


@functools.cache
def kube_apiserver() -> KubeApiServer | None:
    """This process's server, started at the first call; None where no binary is named."""
    binary = os.environ.get(VARIABLE)
    if not binary:
        return None
    server = KubeApiServer(Path(binary), Path(tempfile.mkdtemp(prefix="wattscale-apiserver-")))
    atexit.register(server.stop)
    server.start()
    return server
