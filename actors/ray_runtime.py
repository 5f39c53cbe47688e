"""Silos as Ray actors: the only module that imports Ray.

Ray places silos, restarts them when their process dies, and carries frames between them as bytes. It holds no
truth: names are looked up anew, a call that failed may have happened, and every answer is awaited with a time-out.
Clients do not come through Ray but through the engine's socket.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import logging
import os
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

# Ray reads these once, when it is imported. A silo that dies is our business: its end stands in status and events,
# not on a driver script's standard output.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "A worker died or was killed|has been marked dead")

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.engine_process import EngineProcess, SiloNames, check_private, dead_status, silos_on_record
from actors.node import Node
from actors.wire import ENGINE_SILO, TELEMETRY_SILO
from olvm.model import messages as m
from olvm.model.client_protocol import Exported, ExportHistory, SiloStatus, Sql
from olvm.model.config import Config
from olvm.model.errors import BadInput, EngineUnreachable, JournalLocked, NotFound, OlvmError, from_wire
from olvm.model.record import Record
from olvm.model.table import QueryResult
from olvm.stopping import Stop

log = logging.getLogger("olvm.ray")

# An actor's handle: Ray's own types do not know the methods of an actor.
Handle: TypeAlias = Any

# A Ray node says with this label which host it is: the silo of that host's agent runs there and nowhere else.
HOST_LABEL = "olvm-host"
PINNED = "-node"  # ends the name of a silo that is bound to the node with the label of its host

STOP_REPEAT_S = 0.5
STATUS_TIMEOUT_S = 3.0
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 30.0
LOCK_RETRY_S = 30.0  # a killed predecessor's process may hold its journal for a moment
TOKEN_FILE = "ray_token"  # noqa: S105 - a file name


def namespace_of(directory: str) -> str:
    """One Ray namespace a data center."""
    return "olvm-" + hashlib.blake2b(directory.encode(), digest_size=6).hexdigest()


class SiloProcess:
    """The Ray actor class: one silo. Frames come in order by one thread, questions by others."""

    def __init__(self, name: str, directory: str, config: bytes) -> None:
        Path(directory).mkdir(
            mode=0o700, parents=True, exist_ok=True
        )  # on a host of its own it is not there yet
        logging.basicConfig(
            filename=str(Path(directory) / f"{name}.log"),
            level=logging.WARNING,
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
        )
        self._name = name
        self._started = time.monotonic()
        self._stopped = False
        self._stop_by_question: dict[str, Stop] = {}
        settings = msgspec.json.decode(config, type=Config)
        self._peers = _Peers(directory, config)
        self._node = _open_node(name, directory, settings, self._peers.transmit)
        self._process: EngineProcess | None = None
        # A silo whose thread has died must not linger as a process: Ray restarts what ends.
        self._node.runner.on_fault = _end_process
        if name == ENGINE_SILO:
            infrastructure = _RayInfrastructure(self._node, self._peers, settings)
            self._process = EngineProcess(self._node, infrastructure)
            for silo in [TELEMETRY_SILO, *silos_on_record(self._node)]:
                self._peers.ensure(silo)
            self._process.start()
        else:
            self._node.start()
        # What was recovered lives as long as the process: the collector need not walk it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        _give_back_memory()

    def deliver(self, frame: bytes) -> None:
        self._node.receive(frame)

    def status(self) -> bytes:
        return msgspec.msgpack.encode(self._node.status())

    def query_history(self, request: bytes) -> bytes:
        """Answers (ok, QueryResult) or (error, …): errors cross as values."""
        question_id, ask, snapshots = msgspec.msgpack.decode(request, type=tuple[str, Sql, dict[str, str]])
        return self._stoppable(question_id, lambda stop: self._node.query_history(ask, snapshots, stop))

    def export_history(self, request: bytes) -> bytes:
        question_id, ask, path = msgspec.msgpack.decode(request, type=tuple[str, ExportHistory, str])
        return self._stoppable(question_id, lambda stop: self._node.export_history(ask, Path(path), stop))

    def _stoppable(self, question_id: str, answer: Callable[[Stop], object]) -> bytes:
        stop = self._stop_by_question[question_id] = Stop()
        try:
            return msgspec.msgpack.encode(("ok", answer(stop)))
        except OlvmError as error:
            return msgspec.msgpack.encode(("error", error.to_wire()))
        finally:
            del self._stop_by_question[question_id]

    def stop_question(self, question_id: str, reason: str) -> None:
        """One that has ended, or has not begun, is unknown: whoever stops it asks again until it is answered."""
        stop = self._stop_by_question.get(question_id)
        if stop is not None:
            stop.stop(reason)

    def inject(self, host: str, fault: bytes) -> bool:
        try:
            self._node.inject(host, fault)
        except NotFound:
            return False
        return True

    def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        if self._process is not None:
            self._process.stop()
        else:
            self._node.stop()


def _end_process() -> None:
    logging.shutdown()
    os._exit(1)


def _give_back_memory() -> None:
    """Return what recovery needed and no longer holds; where libc is not glibc, nothing happens."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _open_node(name: str, directory: str, config: Config, transmit: Any) -> Node:
    deadline = time.monotonic() + LOCK_RETRY_S
    while True:
        try:
            return Node(name, directory, config, transmit)
        except JournalLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


_SiloActor: Any = ray.remote(  # type: ignore[call-overload]
    num_cpus=0,
    max_restarts=-1,
    max_task_retries=0,
    concurrency_groups={"frames": 1, "questions": 4, "stops": 1},
)(SiloProcess)


class _Peers:
    """Handles of the other silos, looked up by name and forgotten when they fail."""

    def __init__(self, directory: str, config: bytes) -> None:
        self._directory = directory
        self._config = config
        self._namespace = namespace_of(directory)
        self._handles: dict[str, Handle] = {}
        self._lock = threading.Lock()

    def transmit(self, silo: str, frame: bytes) -> None:
        """Send and forget: the channel above sends again what was lost."""
        handle = self.find(silo)
        if handle is not None:
            handle.deliver.options(concurrency_group="frames").remote(frame)

    def find(self, silo: str) -> Handle | None:
        handle = self._handles.get(silo)
        if handle is None:
            try:
                handle = ray.get_actor(f"silo-{silo}", namespace=self._namespace)
            except ValueError:
                return None
            self._handles[silo] = handle
        return handle

    def ensure(self, silo: str) -> Handle:
        with self._lock:
            handle: Handle = _SiloActor.options(
                name=f"silo-{silo}",
                namespace=self._namespace,
                lifetime="detached",
                get_if_exists=True,
                **_place_of(silo),
            ).remote(silo, self._directory, self._config)
            self._handles[silo] = handle
            return handle

    def names(self) -> list[str]:
        known = ray.util.list_named_actors(all_namespaces=True)
        mine = [entry["name"] for entry in known if entry["namespace"] == self._namespace]
        return sorted(name.removeprefix("silo-") for name in mine if name.startswith("silo-"))


def _place_of(silo: str) -> dict[str, Any]:
    """Where Ray may run a silo: an agent on the node of its host, all else where the data center's files are.

    A node that is away is waited for: nobody else may speak for that host.
    """
    if silo.startswith("host-") and silo.endswith(PINNED):
        host = silo.removeprefix("host-").removesuffix(PINNED)
        return {"label_selector": {HOST_LABEL: host}}
    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


def _is_away(silo: str) -> bool:
    """Its node is not there, so nobody can stop it in order: Ray would wait for the node."""
    host = silo.removeprefix("host-").removesuffix(PINNED)
    return silo.endswith(PINNED) and host not in _labelled_hosts()


def _labelled_hosts() -> set[str]:
    """Hosts that a node of this cluster says it is."""
    return {
        node["Labels"][HOST_LABEL]
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and HOST_LABEL in node.get("Labels", {})
    }


def wait_for_hosts(names: set[str], timeout_s: float) -> set[str]:
    """Join the cluster that RAY_ADDRESS names until each of these hosts has a node there; those that have none."""
    ray.init(log_to_driver=False, logging_level=logging.ERROR)
    deadline_s = time.monotonic() + timeout_s
    try:
        while (missing := names - _labelled_hosts()) and time.monotonic() < deadline_s:
            time.sleep(0.1)
    finally:
        ray.shutdown()
    return missing


class _RayInfrastructure:
    """What the engine's gateway asks of the runtime. Lives in the engine's process."""

    runtime_name = "ray"

    def __init__(self, node: Node, peers: _Peers, config: Config) -> None:
        self.directory = str(node.directory)
        self._node = node
        self._peers = peers
        self._names = SiloNames(config)

    def silo_for_host(self, command: m.AddHost) -> str:
        name = self._names.for_host(command)
        if command.backend != "simulated" and not command.silo and command.name in _labelled_hosts():
            name = f"host-{command.name}{PINNED}"
        self._peers.ensure(name)
        return name

    def silo_for_vm(self, command: m.CreateVm) -> str:
        name = self._names.for_vm(command)
        if name:
            self._peers.ensure(name)
        return name

    def statuses(self) -> list[SiloStatus]:
        found = {ENGINE_SILO: self._node.status()}
        asked: dict[Any, str] = {}
        for name in self._peers.names():
            handle = self._peers.find(name)
            if name != ENGINE_SILO and handle is not None:
                asked[handle.status.options(concurrency_group="questions").remote()] = name
        ready, _ = (
            ray.wait(list(asked), num_returns=len(asked), timeout=STATUS_TIMEOUT_S) if asked else ([], [])
        )
        for reference in ready:
            name = asked[reference]
            try:
                found[name] = msgspec.msgpack.decode(ray.get(reference, timeout=1), type=SiloStatus)
            except (ray.exceptions.RayError, TimeoutError) as error:
                found[name] = dead_status(name, type(error).__name__)
        for name in asked.values():
            found.setdefault(name, dead_status(name, f"no answer in {STATUS_TIMEOUT_S:g} s"))
        return [found[name] for name in sorted(found)]

    def query_history(self, ask: Sql, snapshots: dict[str, str], stop: Stop) -> QueryResult:
        answer = self._ask_telemetry("query_history", ask, snapshots, stop)
        return msgspec.convert(answer, QueryResult)

    def export_history(self, ask: ExportHistory, directory: Path, stop: Stop) -> Exported:
        return msgspec.convert(self._ask_telemetry("export_history", ask, str(directory), stop), Exported)

    def _ask_telemetry(self, method: str, ask: Sql | ExportHistory, more: object, stop: Stop) -> Any:
        handle = self._peers.find(TELEMETRY_SILO)
        if handle is None:
            raise OlvmError("history is not available: the telemetry silo does not run; it is being started")
        question_id = secrets.token_hex(8)
        request = msgspec.msgpack.encode((question_id, ask, more))

        def stop_there() -> None:
            handle.stop_question.options(concurrency_group="stops").remote(question_id, stop.reason)

        try:
            reference = getattr(handle, method).options(concurrency_group="questions").remote(request)
            with stop.watching(stop_there, ask.timeout_s, repeat_s=STOP_REPEAT_S):
                answer: Any = ray.get(reference, timeout=ask.timeout_s + 5)
        except (ray.exceptions.RayError, TimeoutError) as error:
            raise OlvmError(
                f"history did not answer ({type(error).__name__}); the telemetry silo may be restarting, try again"
            ) from error
        kind, value = msgspec.msgpack.decode(answer)
        if kind == "error":
            raise from_wire(*value)
        return value

    def inject(self, host: str, fault: bytes) -> None:
        for name in self._peers.names():
            handle = self._peers.find(name) if name.startswith("host-") else None
            if handle is not None and ray.get(
                handle.inject.options(concurrency_group="questions").remote(host, fault), timeout=10
            ):
                return
        raise NotFound(f"host {host} has no simulated hypervisor here")


class RayRuntime:
    """Starts a data center on Ray from a driver, and stops it."""

    runtime_name = "ray"

    def __init__(self, directory: Path, config: Config) -> None:
        check_private(directory)
        self.directory = str(directory)
        self._owns_ray = not ray.is_initialized()
        self._refuse_second_engine()
        if self._owns_ray:
            _start_ray(directory)
        self._peers = _Peers(self.directory, msgspec.json.encode(config))
        try:
            engine = self._peers.ensure(ENGINE_SILO)
            ray.get(engine.status.options(concurrency_group="questions").remote(), timeout=START_TIMEOUT_S)
        except ray.exceptions.RayError as error:
            self.close()
            raise _unwrapped(error) from error

    def _refuse_second_engine(self) -> None:
        """Two engines on one directory: found before Ray is started, by the journal's own lock."""
        from olvm.journal.duckdb_journal import DuckDbJournal

        path = Path(self.directory) / f"{ENGINE_SILO}.duckdb"
        if path.exists():
            from actors.assembly import record_types
            from actors.runner import clock_ns

            types: tuple[type[Record], ...] = record_types("engine")
            DuckDbJournal.open(path, types, journal_id=secrets.token_hex(8), now_ns=clock_ns).close()

    def close(self) -> None:
        """Stop the silos in order, engine first, then Ray if it was started here. Idempotent."""
        if not ray.is_initialized():
            return
        names = self._peers.names()
        names.sort(key=lambda name: name != ENGINE_SILO)
        for name in names:
            handle = self._peers.find(name)
            if handle is None:
                continue
            if _is_away(name):
                ray.kill(handle, no_restart=True)
                continue
            try:
                ray.get(handle.stop.options(concurrency_group="questions").remote(), timeout=STOP_TIMEOUT_S)
            except (ray.exceptions.RayError, TimeoutError) as error:
                log.warning("silo %s did not stop in order: %s", name, error)
            ray.kill(handle, no_restart=True)
        if self._owns_ray:
            ray.shutdown()


def _unwrapped(error: Exception) -> OlvmError:
    """The reason that a silo gave for not starting, without Ray's wrapping."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OlvmError):
            return type(cause)(cause.message)
        cause = cause.__cause__
    lines = [line for line in str(error).splitlines() if "olvm.model.errors." in line]
    return OlvmError(f"the engine did not start on Ray: {lines[-1].strip() if lines else error}")


# Ray reads its token once in the life of a process, so every Ray that is used in one must have the same. Holds it once
# it is known.
_process_token: list[str] = []


def own_token() -> str:
    """Of a Ray that this process starts."""
    if not _process_token:
        _process_token.append(secrets.token_hex(32))
    return _process_token[0]


def _join_token() -> None:
    """Raises EngineUnreachable where this process has used a Ray with another token: a cluster would refuse it."""
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    try:
        token = os.environ.get("RAY_AUTH_TOKEN") or (Path(path).read_text().strip() if path else "")
    except OSError as error:
        raise EngineUnreachable(
            f"cannot read the token of the Ray cluster in {path} (RAY_AUTH_TOKEN_PATH): {error.strerror}"
        ) from error
    if token and not _process_token:
        _process_token.append(token)
    elif token and _process_token[0] != token:
        raise EngineUnreachable(
            "this process has used a Ray with another token, and Ray takes one a process; start a new process"
        )


def _start_ray(directory: Path, *, cpus: int = 2, address: str | None = None) -> None:
    """A Ray of our own on this machine, or the cluster at `address` or RAY_ADDRESS; token authentication stays on."""
    token = directory / TOKEN_FILE
    address = address or os.environ.get("RAY_ADDRESS")
    if address is None:
        descriptor = os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            file.write(own_token())
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    else:
        _join_token()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SCHEDULER_EVENTS", "0")
    # Ray warns of the coming default of this variable at every start unless it is set.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # "local": without it, Ray joins whatever cluster `ray start` has left a note of on this machine.
    cluster: dict[str, Any] = {"address": address or "local"}
    if address is None:
        cluster["num_cpus"] = cpus
    ray.init(
        namespace=namespace_of(str(directory)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        configure_logging=True,
        **cluster,
    )


# ---------------------------------------------------------------- tasks


class RayPool(Executor):
    """Runs plain functions as Ray tasks, for campaigns and grids. Ray's retries are off: a seed counts once.

    `cpus`: of a Ray of our own; `address`: of a cluster that is there. Raises EngineUnreachable when there is none.
    """

    def __init__(self, *, cpus: int = 2, address: str | None = None) -> None:
        self._owns_ray = not ray.is_initialized()
        self._directory = tempfile.TemporaryDirectory(prefix="olvm-ray-")
        if self._owns_ray:
            try:
                _check_listens(address)
                _start_ray(Path(self._directory.name), cpus=cpus, address=address)
            except (ray.exceptions.RayError, OSError, ValueError, RuntimeError) as error:
                self._directory.cleanup()
                why = (str(error).strip().splitlines() or [type(error).__name__])[-1]
                raise EngineUnreachable(
                    f"Ray does not answer{'' if address is None else f' at {address}'}: {why}; give the address of "
                    "its head as host:6379, and its token by RAY_AUTH_TOKEN_PATH"
                ) from error
        resources: Callable[[], dict[str, float]] = ray.cluster_resources
        self.cpus = max(1, int(resources().get("CPU", 1)))  # of all nodes
        self._task: Any = ray.remote(num_cpus=1, max_retries=0)(_call)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = self._task.remote(fn, args, kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        del wait, cancel_futures
        if self._owns_ray:
            ray.shutdown()
        self._directory.cleanup()


def _check_listens(address: str | None) -> None:
    """Ray itself waits for minutes for a head that is not there. Raises an OSError."""
    host, colon, port = (address or "").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=STATUS_TIMEOUT_S).close()


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


def ray_pool(workers: int, mutant: str = "") -> Executor:
    """A pool of Ray tasks in place of processes; planted bugs need processes of their own.

    Raises:
        BadInput: a mutant was asked for.
    """
    if mutant:
        raise BadInput("planted bugs are hunted in processes, not in Ray tasks: leave --ray out")
    del workers  # the caller keeps so many under way; Ray gives each a CPU
    return RayPool()
