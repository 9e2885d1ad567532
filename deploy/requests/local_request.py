"""`wattscale request apply`, `status` and `delete`: a request carried out by one process, on this machine's files.

Everything that it knows is in the folder: killed at any time, the same command goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bus_schemas.regular_files import SETTINGS_BYTES, read_regular
from deploy.cli.errors import CliError, UsageError
from deploy.requests.local_deployment import LocalDeployment
from deploy.requests.local_outputs import LocalPlace, read_graph, restore_graph, write_outputs
from deploy.requests.local_profiling import (
    ApplyOptions,
    check_system,
    counted_gpus,
    gpu_names,
    gpus_here,
    profiled_engine,
    profiling_seen,
    run_profiler,
    with_gpus_here,
)
from deploy.requests.request_folder import KeptRequest, RequestFolder
from deploy.yaml_text import read_yaml
from planner.adapters.profiles import ProfileError, load_profile
from planner.profiler.analysis.profiling_phase import ProfilingPhase
from planner.profiler.online.measurement_log import logged_phase
from planner.profiler.requests.generated.deployment_sizing import SizingError, size_deployment
from planner.profiler.requests.lifecycle import (
    DeploymentProgress,
    JobProgress,
    RequestAction,
    RequestSeen,
    RequestStep,
    advance,
)
from planner.profiler.requests.power_request import PowerRequest
from planner.profiler.requests.request_manifest import RequestError, parse_request
from planner.profiler.requests.request_status import (
    ConditionType,
    RequestState,
    status_from_dict,
    status_to_dict,
)

INTERRUPTED = 130
WATCH_S = 0.25
ENDS_WITHIN_S = 60.0
DRAINS_WITHIN_S = 120.0
ATTEND_S = 5.0
"""Between two looks at the state while workers start."""
WELL = (RequestState.READY, RequestState.DEPLOYED)


def read_manifest(file: Path) -> Any:
    """The content of a request's file. Raises UsageError."""
    try:
        content = read_yaml(read_regular(file, SETTINGS_BYTES).decode("utf-8"))
        json.dumps(content)  # it is kept as JSON
    except OSError as error:
        raise UsageError(f"-f {file}: cannot be read: {error.strerror or error}") from error
    except TypeError as error:
        raise UsageError(f"-f {file}: {error}; put dates into quotes") from error
    except ValueError as error:
        raise UsageError(f"-f {file}: {error}") from error
    return content


def apply_request(content: Any, folder: RequestFolder, options: ApplyOptions) -> int:
    """Carry a request out as far as it goes now. Returns 0 where it is ready, 1 where it is not, 130 if interrupted."""
    with folder.held(), _files_in_a_line():
        record = folder.read()
        if record is None:
            folder.forget_deletion()
        elif folder.deleting:
            raise UsageError(
                f"--folder {folder.path}: its deletion has begun and did not end: give `wattscale request delete` again"
            )
        with _until_deleted(folder):
            return _applied(content, folder, record, options)


def _applied(content: Any, folder: RequestFolder, record: KeptRequest | None, options: ApplyOptions) -> int:
    try:
        request = parse_request(content)
    except RequestError as error:
        if record is None:
            raise UsageError(*error.problems) from error
        return LocalRequest(folder, record, None, options).refused(error)
    if record is None:
        _refuse_leftovers(folder)
        record = KeptRequest(content, {}, ())
    request = with_gpus_here(request, gpus_here(options))
    if profiling_seen(folder, request).progress is JobProgress.ABSENT:
        check_system(request)
    return LocalRequest(folder, record, content, options).carry_out(request)


def _refuse_leftovers(folder: RequestFolder) -> None:
    if folder.profile.exists() or folder.workers.exists():
        raise UsageError(
            f"--folder {folder.path}: it has no request.json, but what a deleted request leaves: profile and workers. "
            "End and remove both with `wattscale request delete --drain-workers`, or name another folder"
        )


class LocalRequest:
    """One request while a command works on it. ``content``: the manifest as it is now."""

    def __init__(
        self, folder: RequestFolder, record: KeptRequest, content: Any | None, options: ApplyOptions | None
    ) -> None:
        self._folder = folder
        self._record = record
        self._content = content
        self._options = options
        self._workers = LocalDeployment(folder.connector_file)

    def refused(self, error: RequestError) -> int:
        """The spec became one that cannot be read."""
        try:
            status = status_from_dict(self._record.status)
        except ValueError as mistake:
            raise UsageError(f"{self._folder.path}: {mistake}") from mistake
        if status.state in (None, RequestState.PENDING):
            raise UsageError(*error.problems)
        self._step(error, RequestSeen())
        raise UsageError(*error.problems)

    def carry_out(self, request: PowerRequest) -> int:
        """Step until it neither changes nor has anything to do."""
        generated = status_from_dict(self._record.status).generated
        if generated is not None and read_graph(self._folder) is None:
            restore_graph(self._folder, generated)
        while True:
            step, changed = self._step(request, self.seen(request))
            for action in step.actions:
                if (code := self._act(action, request)) is not None:
                    return code
            if not changed and not step.actions:
                if self._starting(step):
                    self._workers.start(None, ATTEND_S)
                    continue
                return self._settled(request, step)

    def delete(self, request: PowerRequest, *, drain_workers: bool) -> None:
        """End it; afterwards the folder has no request. Raises CliError."""
        if drain_workers and self._folder.connector_file.exists():
            self._workers.drain(DRAINS_WITHIN_S)
        while True:
            step, _ = self._step(request, self.seen(request, deleting=True))
            if RequestAction.REMOVE_OUTPUTS in step.actions:
                self._folder.remove_outputs()
            if RequestAction.RELEASE in step.actions:
                stays = self._workers.seen().progress is not DeploymentProgress.ABSENT
                self._folder.remove(workers=not stays)
                return

    def seen(self, request: PowerRequest, *, deleting: bool = False) -> RequestSeen:
        """What is on the disk and what runs."""
        if deleting:
            # Nothing else counts, so that damaged files keep no request from being deleted.
            outputs: dict[str, Any] | None = {} if self._folder.outputs.exists() else None
            return RequestSeen(deployment=self._workers.seen(), generated=outputs, deleting=True)
        gpus, missing = (None, "") if self._options is None else counted_gpus(self._options)
        return RequestSeen(
            profiling=profiling_seen(self._folder, request),
            deployment=self._workers.seen(),
            generated=read_graph(self._folder),
            gpus=gpus,
            gpus_missing=missing,
        )

    def _step(self, request: PowerRequest | RequestError, seen: RequestSeen) -> tuple[RequestStep, bool]:
        status = status_from_dict(self._record.status)
        step = advance(request, status, seen, datetime.now(UTC))
        if (changed := step.status != status) or step.events:
            for event in step.events:
                print(f"{event.to_dict()['at']} {event.type} {event.reason.value}: {event.message}", flush=True)
            written = self._record.status
            if isinstance(request, PowerRequest):
                written = status_to_dict(
                    step.status,
                    name=request.deployment_name,
                    namespace=request.deployment_namespace,
                    job=request.job_name,
                )
            accepted = self._content is not None and step.status.rejected == ""
            self._record = KeptRequest(
                self._content if accepted and self._content is not None else self._record.manifest,
                written,
                (*self._record.events, *(event.to_dict() for event in step.events)),
            )
            self._folder.write(self._record)
        return step, changed

    def _act(self, action: RequestAction, request: PowerRequest) -> int | None:
        """Do it. Returns an exit code where the command ends with it."""
        assert self._options is not None  # noqa: S101 - only `apply` acts
        if action is RequestAction.START_PROFILING:
            return None if run_profiler(self._folder, request, self._options) else INTERRUPTED
        if action is RequestAction.WRITE_OUTPUTS:
            self._write(request, self._options)
        elif action is RequestAction.APPLY_DEPLOYMENT:
            try:
                replicas = size_deployment(load_profile(self._folder.profile), request).aggregated.replicas
            except (ProfileError, SizingError) as error:
                raise UsageError(f"{request.name}: its workers cannot be started: {error}") from error
            self._workers.start({"aggregated": replicas}, ATTEND_S)
        return None

    def _write(self, request: PowerRequest, options: ApplyOptions) -> None:
        engine = profiled_engine(self._folder, request, options)
        place = LocalPlace(options.bus, options.first_port, gpu_names(options), engine)
        try:
            write_outputs(self._folder, request, load_profile(self._folder.profile), place)
        except (ProfileError, SizingError) as error:
            self._folder.profile_failed(ProfilingPhase.GENERATING_DGD, str(error))

    def _starting(self, step: RequestStep) -> bool:
        deployment = self._workers.seen()
        waits = step.status.state is RequestState.DEPLOYING and not step.status.rejected
        return waits and deployment.progress is DeploymentProgress.STARTING

    def _settled(self, request: PowerRequest, step: RequestStep) -> int:
        status = step.status
        assert status.state is not None  # noqa: S101 - a step gives it one
        if status.rejected:
            raise CliError(
                f"{request.name}: its spec cannot change in state {status.state.value}, nothing was done; change it "
                "back, or delete the request and apply it anew"
            )
        if status.generated is not None:
            print(f"{request.name}: {status.state.value}; {self._folder.outputs} has what was generated")
        if status.state in WELL:
            return 0
        summary = status.condition(ConditionType.SUCCEEDED)
        raise CliError(f"{request.name}: {status.state.value}: {summary.message if summary else ''}")


def show_status(folder: RequestFolder, *, as_json: bool) -> int:
    """Print where a request is. Returns 0 where it is well or under way, 1 where it failed. Raises UsageError."""
    record = folder.read()
    if record is None:
        raise UsageError(f"--folder {folder.path}: there is no request; apply one")
    if as_json:
        print(json.dumps({**record.manifest, "status": dict(record.status)}, indent=1))
    else:
        status = record.status
        print(f"{record.manifest['metadata']['name']}: {status.get('stage')} (v1alpha1 {status.get('state')})")
        if status.get("stage") == RequestState.PROFILING:
            print(f"profiling: {logged_phase(folder.profile).value}")
        for one in status.get("conditions", ()):
            print(f"  {one['type']}: {one['status']} {one['reason']}: {one['message']}")
        for event in record.events:
            print(f"  {event['at']} {event['type']} {event['reason']}: {event['message']}")
    return 1 if record.status.get("stage") == RequestState.FAILED else 0


def delete_request(folder: RequestFolder, *, drain_workers: bool) -> int:
    """End a request and remove what it wrote. Workers that serve stay, unless they are to be drained."""
    if folder.read() is None:
        if not folder.connector_file.exists():
            raise UsageError(f"--folder {folder.path}: there is no request")
        if not drain_workers:
            raise UsageError(f"--folder {folder.path}: its request is deleted; --drain-workers ends its workers")
        with folder.held(), _files_in_a_line():
            LocalDeployment(folder.connector_file).drain(DRAINS_WITHIN_S)
            folder.remove(workers=True)
        return 0
    with _files_in_a_line():
        folder.ask_to_delete()
    with _held_soon(folder), _files_in_a_line():
        record = folder.read()
        if record is None:
            return 0
        try:
            request = parse_request(record.manifest)
        except RequestError as error:
            raise UsageError(f"{folder.path}: its request cannot be read: {error}; remove the folder") from error
        LocalRequest(folder, record, None, None).delete(request, drain_workers=drain_workers)
    print(f"{request.name}: deleted")
    return 0


@contextlib.contextmanager
def _files_in_a_line() -> Iterator[None]:
    """A file of the request's that cannot be read, written or removed ends the command in one line."""
    try:
        yield
    except OSError as error:
        if not error.filename:
            raise
        raise CliError(f"{error.filename}: {error.strerror}; mend it, and give the command again") from error


@contextlib.contextmanager
def _until_deleted(folder: RequestFolder) -> Iterator[None]:
    """End this process by a SIGTERM when the request is deleted meanwhile: profiling then ends its engines in order."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(WATCH_S):
            if folder.deleting:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def _held_soon(folder: RequestFolder) -> Iterator[None]:
    """Hold the folder as soon as whoever carries the request out has ended. Raises CliError."""
    began_s = time.monotonic()
    while True:
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(folder.held())
            except UsageError as error:
                if time.monotonic() - began_s > ENDS_WITHIN_S:
                    raise CliError(f"{error}; it has not ended after {ENDS_WITHIN_S:g} s") from error
                time.sleep(WATCH_S)
                continue
            yield
            return
