"""The agent's aiohttp holds no public certificate authorities, and everything made later still does."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import os, ssl
os.environ["SSL_CERT_FILE"] = "/some/authority.pem"
from deploy.compose.lean_aiohttp import import_aiohttp
import_aiohttp()
from aiohttp import connector
print(connector._SSL_CONTEXT_VERIFIED.cert_store_stats()["x509"], connector._SSL_CONTEXT_VERIFIED.verify_mode.name)
print(os.environ["SSL_CERT_FILE"])
"""


def test_aiohttp_is_imported_without_authorities_and_the_environment_is_put_back() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    assert run.stdout.split("\n")[:2] == ["0 CERT_REQUIRED", "/some/authority.pem"], run.stderr
