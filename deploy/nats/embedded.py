"""Runs a nats-server with JetStream on loopback as a child process, for `wattscale up` and the tests.

Owns the process, its configuration and its scratch folder. Must never touch a server that it did not start, and leaves
nothing behind but the data folder that it was given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploy.nats.binary import find_server
from deploy.nats.conf import render

MAX_CONSUMERS = 20_000
POLL_S = 0.02
PID_FILE = "wattscale-nats.pid"
WATCHER = 'read -r _; kill -TERM "$1" 2>/dev/null'
"""Reads a pipe that only this process holds open: when this process ends, in whatever way, the server is ended too."""
LEAVING_S = 3.0
MEMORY_LIMIT = "300MiB"
GARBAGE_PERCENT = "50"
"""By default Go lets the heap double between collections: at 5,000 agents half a gigabyte, with 230 MB in use."""
MEMORY_STORE_BYTES = 256 << 20
"""Set, because the server would derive it from the memory limit otherwise."""


class ServerDownError(Exception):
    """The server did not start, or ended by itself; the message holds its last log lines."""


class EmbeddedServer:
    """``async with EmbeddedServer(folder) as server: connect(server.url)``.

    Without ``data_dir`` the data lives in the scratch folder and goes with it. ``port`` 0 lets the system choose; a
    restarted server keeps its port. ``sync_always`` makes every stored message survive a power cut, at about a tenth
    of the rate. ``memory_limit`` is soft: the server tries to stay below it. ``settings`` are added to the server's
    configuration and replace entries of the same name. Raises ServerMissingError without a binary, ServerDownError
    when it does not start.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        port: int = 0,
        *,
        sync_always: bool = False,
        max_consumers: int = MAX_CONSUMERS,
        host: str = "127.0.0.1",
        name: str = "wattscale-embedded",
        settings: Mapping[str, Any] | None = None,
        memory_limit: str = MEMORY_LIMIT,
        start_timeout_s: float = 20.0,
    ) -> None:
        self._data_dir = Path(data_dir) if data_dir is not None else None
        self._host, self._port, self._monitor_port = host, port, 0
        self._name = name
        # A value in the environment takes precedence.
        self._environment = {"GOMEMLIMIT": memory_limit, "GOGC": GARBAGE_PERCENT, **os.environ}
        self._jetstream: dict[str, Any] = {
            "max_memory_store": MEMORY_STORE_BYTES,
            "limits": {"default_max_consumers": max_consumers},
        }
        if sync_always:
            self._jetstream["sync_interval"] = "always"
        self._settings = dict(settings or {})
        self._start_timeout_s = start_timeout_s
        self._started_pid = 0
        """Of a process that was started and is not known to have ended."""
        self.destroyed = False
        self._scratch: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._watcher: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{self._host}:{self._port}"

    @property
    def pid(self) -> int:
        """The server's process id; 0 while it does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    @property
    def log(self) -> str:
        """The server's log so far."""
        path = self._scratch / "server.log" if self._scratch else None
        return path.read_text(errors="replace") if path and path.exists() else ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start, also again after `stop` or `kill`, and wait until JetStream is healthy."""
        binary = find_server()
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="wattscale-nats-"))
        try:
            store = self._data_dir or self._scratch / "data"
            store.mkdir(parents=True, exist_ok=True)
            await _refuse_another(store)
            config = self._scratch / "nats.conf"
            config.write_text(render(self._config(store)), encoding="utf-8")
            config.chmod(0o600)
            with (self._scratch / "server.log").open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *(str(binary), "--config", str(config)),
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    # A session of its own: an interrupt in the terminal is for this process, which stops the server
                    # last.
                    start_new_session=True,
                )
            self._started_pid = self._process.pid
            (store / PID_FILE).write_text(f"{self._process.pid}\n")
            await self._watch(self._process.pid)
            async with asyncio.timeout(self._start_timeout_s):
                await self._until_ready()
        except TimeoutError:
            words = self._last_words()
            await self.close()
            raise ServerDownError(
                f"nats-server did not become healthy in {self._start_timeout_s:g} s: {words}"
            ) from None
        except BaseException:
            await self.close()
            raise

    async def stop(self) -> None:
        """Stop in order (SIGTERM, and SIGKILL after five seconds); `start` may follow."""
        await self._end(signal.SIGTERM, 5.0)

    async def kill(self) -> None:
        """End the server like a crash (SIGKILL); `start` may follow."""
        await self._end(signal.SIGKILL, 5.0)

    def destroy(self) -> None:
        """End the server like a crash and remove the scratch folder: for a process that cannot end in order."""
        pid, scratch = self._started_pid, self._scratch
        self.destroyed = True
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if scratch is not None:
            shutil.rmtree(scratch, ignore_errors=True)

    async def close(self) -> None:
        """Stop for good and remove the scratch folder."""
        try:
            await self.stop()
        finally:
            if self._scratch is not None:
                shutil.rmtree(self._scratch, ignore_errors=True)
                self._scratch = None

    def _config(self, store: Path) -> dict[str, Any]:
        config: dict[str, Any] = {
            "server_name": self._name,
            "listen": f"{self._host}:{self._port or -1}",
            "http": f"{self._host}:{self._monitor_port or -1}",
            "ports_file_dir": str(self._scratch),
            "jetstream": {"store_dir": str(store), **self._jetstream},
        }
        return config | self._settings

    async def _until_ready(self) -> None:
        while not self._read_ports():
            self._check_alive()
            await asyncio.sleep(POLL_S)
        while not await self._healthy():
            self._check_alive()
            await asyncio.sleep(POLL_S)

    def _read_ports(self) -> bool:
        if self._scratch is None:
            return False
        for path in self._scratch.glob(f"*_{self.pid}.ports"):
            with contextlib.suppress(ValueError, LookupError):  # half written: read it again
                ports = json.loads(path.read_text())
                self._port = int(ports["nats"][0].rsplit(":", 1)[1])
                self._monitor_port = int(ports["monitoring"][0].rsplit(":", 1)[1])
                return True
        return False

    async def _healthy(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(self._host, self._monitor_port)
        except OSError:
            return False
        try:
            writer.write(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            await writer.drain()
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _check_alive(self) -> None:
        if self._process is not None and self._process.returncode is not None:
            raise ServerDownError(f"nats-server ended with code {self._process.returncode}: {self._last_words()}")

    def _last_words(self) -> str:
        return " | ".join(self.log.strip().splitlines()[-3:]) or "its log is empty"

    async def _watch(self, pid: int) -> None:
        await self._unwatch()
        self._watcher = await asyncio.create_subprocess_exec(
            *("sh", "-c", WATCHER, "sh", str(pid)), stdin=asyncio.subprocess.PIPE, start_new_session=True
        )

    async def _unwatch(self) -> None:
        """Stop the watcher. Done before the server ends: afterwards its process id may belong to another process."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None and watcher.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                watcher.kill()
            await watcher.wait()

    async def _end(self, how: signal.Signals, patience_s: float) -> None:
        await self._unwatch()
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        self._started_pid = 0


async def _refuse_another(store: Path) -> None:
    """Wait until no other server uses the folder: two servers would corrupt it.

    Raises ServerDownError with the process id of one that does not end in time.
    """
    for _ in range(round(LEAVING_S / POLL_S)):
        if (pid := _user_of(store)) is None:
            return
        await asyncio.sleep(POLL_S)
    raise ServerDownError(f"another nats-server (process {pid}) still uses {store}; end it first: kill {pid}")


def _user_of(store: Path) -> int | None:
    """The process id of a running server that was started on the folder, or None."""
    try:
        pid = int((store / PID_FILE).read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    try:
        name, _, state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return pid
    # The id may belong to another process by now, and a zombie has ended.
    return pid if "nats-server" in name and state.split()[0] != "Z" else None
