"""The gRPC server of the external scaler: its address, its limits, and TLS whose files may be renewed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

import grpc

from agent.connectors.autoscaler.autoscaler_file import ExternalScalerSection
from agent.connectors.autoscaler.keda.external_scaler import ExternalScaler

log = logging.getLogger(__name__)
MOST_CALLS = 4096
"""Open at one time; every ScaledObject holds one stream."""
MOST_BYTES = 64 * 1024
END_S = 1.0
OPTIONS = (
    ("grpc.so_reuseport", 0),  # An address that is taken is an error, and not shared with whoever has it.
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.keepalive_time_ms", 30_000),  # The stream of a KEDA that vanished without a word ends.
    ("grpc.keepalive_timeout_ms", 10_000),
)


async def serve_scaler(settings: ExternalScalerSection, scaler: ExternalScaler, listening: asyncio.Event) -> None:
    """Serve until cancelled; ``listening`` is set once the address can be reached.

    Raises OSError for an address that is taken and for files that cannot be used.
    """
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MOST_CALLS)
    server.add_generic_rpc_handlers((scaler.handlers(),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{host}:{settings.port}"
    files = settings.files
    try:
        if files is None:
            port = server.add_insecure_port(address)
        else:
            credentials = await asyncio.to_thread(_credentials, *files, settings.tls_client_ca_file)
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise OSError(f"cannot listen on {address}: the port is taken, or the address is not of this host") from error
    await server.start()
    listening.set()
    log.info("serving KEDA's external scaler on %s:%s%s", host, port, "" if files is None else " with TLS")
    try:
        await server.wait_for_termination()
    finally:
        scaler.close()
        await server.stop(END_S)


def _credentials(cert: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    """Raises OSError that names the files."""
    known: tuple[bytes, ...] = ()

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        """New settings for a connection; None: as before. Raises OSError."""
        nonlocal known
        found = (key.read_bytes(), cert.read_bytes(), client_ca.read_bytes() if client_ca is not None else b"")
        if found == known:
            return None
        _check(cert, key, client_ca)
        known = found
        return grpc.ssl_server_certificate_configuration([(found[0], found[1])], found[2] or None)

    def at_a_connection() -> grpc.ServerCertificateConfiguration | None:
        try:
            return renewed()
        except OSError as error:  # Written at this very moment: what was good until now still is.
            log.warning("the external scaler's certificate is the old one: %s", error)
            return None

    try:
        first = renewed()
    except OSError as error:
        names = ", ".join(str(one) for one in (cert, key, client_ca) if one is not None)
        raise OSError(f"external_scaler: these files cannot be used for TLS: {names}: {error}") from error
    return grpc.dynamic_ssl_server_credentials(first, at_a_connection, client_ca is not None)


def _check(cert: Path, key: Path, client_ca: Path | None) -> None:
    """gRPC only says that a port could not be bound."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    if client_ca is not None:
        tls.load_verify_locations(client_ca)
