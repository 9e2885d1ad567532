"""Stands before an API server older than 1.23 and gives it `autoscaling/v2`: its `v2beta2` has the same fields.

    python older_kubernetes.py PORT URL CERTIFICATE KEY

All else passes as it is, watches piece by piece. When the server goes away, so do the connections.
"""

from __future__ import annotations

import asyncio
import ssl
import sys

from aiohttp import ClientError, ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

NEW, OLD = "autoscaling/v2", "autoscaling/v2beta2"
OF_ONE_CONNECTION = ("connection", "content-length", "host", "keep-alive", "transfer-encoding")


class Relay:
    """Passes requests on to ``server``."""

    def __init__(self, server: str, session: ClientSession) -> None:
        self._server, self._session = server, session

    async def passed_on(self, request: web.Request) -> web.StreamResponse:
        """One request and its answer."""
        target = request.raw_path.replace(f"/apis/{NEW}", f"/apis/{OLD}", 1)
        body = (await request.read()).replace(f'"{NEW}"'.encode(), f'"{OLD}"'.encode())
        headers = {name: text for name, text in request.headers.items() if name.lower() not in OF_ONE_CONNECTION}
        try:
            async with self._session.request(
                request.method, URL(self._server + target, encoded=True), headers=headers, data=body or None
            ) as answer:
                response = web.StreamResponse(status=answer.status, reason=answer.reason)
                for name, text in answer.headers.items():
                    if name.lower() not in OF_ONE_CONNECTION:
                        response.headers.add(name, text)
                await response.prepare(request)
                async for piece in answer.content.iter_any():
                    await response.write(piece)
                await response.write_eof()
                return response
        except (ClientError, OSError):
            if request.transport is not None:
                request.transport.abort()
            raise


async def main(port: int, server: str, certificate: str, key: str) -> None:
    """Serve on loopback until killed."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    connector = TCPConnector(limit=0, ssl=False)
    async with ClientSession(connector=connector, timeout=ClientTimeout(total=None), auto_decompress=False) as session:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", Relay(server, session).passed_on)
        runner = web.AppRunner(app, handler_cancellation=True)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), *sys.argv[2:5]))
