"""A throw-away authority for TLS tests, by the openssl of the machine."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl on this machine to make certificates with")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.own = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        _openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"),
            *("-subj", f"/CN=wattscale test {name}", "-keyout", str(self.own.key), "-out", str(self.own.cert)),
            *("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"),
        )

    def issue(self, name: str, days: int = 2) -> Pair:
        """For servers on this machine and for clients. 0 days: expired at once."""
        pair, request = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key"), self._folder / f"{name}.csr"
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(
            "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n"
            "keyUsage=critical,digitalSignature\n"
        )
        _openssl(
            *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-subj", f"/O=wattscale/CN={name}", "-keyout", str(pair.key), "-out", str(request)),
        )
        when = ("-days", str(days))
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.own.cert), "-CAkey", str(self.own.key)),
            *("-CAcreateserial", "-extfile", str(extensions), "-out", str(pair.cert), *when),
        )
        return pair


def _openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=60)
