"""Where clients meet the engine: requests in, answers and pushes out, always after the commit.

The gateway holds no truth. Commands become messages to the `engine` actor; reads are SQL on the committed journal,
run in reader threads so that a heavy query never delays a turn; the end of an operation is pushed to whoever
watches it, from the commit that ended it.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol, assert_never

import msgspec

from actors.authentication import Account, Authentication, Client, Outbound
from actors.engine import view_of
from actors.event_feed import EventFeed
from actors.operation_feed import OperationFeed, read_ended
from actors.pam_accounts import PamAccounts
from actors.questions import Questions, checked_question, checked_times
from actors.silo import Silo
from actors.silo_ports import Records
from actors.verifiers import Verifiers
from actors.wire import Envelope
from hypervisor_backends.fence_names import check_names
from hypervisor_backends.fence_options import check_options
from olvm.model import client_protocol as p
from olvm.model import messages as m
from olvm.model.errors import BadInput, Denied, OlvmError
from olvm.model.limits import SQL_ROWS_MAX
from olvm.model.names import check_name
from olvm.model.records import EventRecord, OperationRecord
from olvm.model.table import QueryResult
from olvm.stopping import Stop

log = logging.getLogger("olvm.gateway")

READER_COUNT = 3
EVENT_COLUMNS = (
    "seq, at_ns, code, severity, message, vm_id, vm_name, host, cluster, operation_id, details, id"
)
ACCOUNT_SQL = (
    "select u.name, u.kind, u.status, u.revision, coalesce(v.verifier, '') "
    "from users u left join user_verifiers v on v.name = u.name where u.name = ?"
)


class Connection(Protocol):
    """One client. Both methods may be called from any thread and never block."""

    number: int

    def push(self, answer: p.Answer) -> None: ...

    def flush(self) -> None: ...


class Infrastructure(Protocol):
    """What only the runtime can do."""

    runtime_name: str
    directory: str

    def silo_for_host(self, command: m.AddHost) -> str:
        """Make sure that a host silo for this host runs; its name."""

    def silo_for_vm(self, command: m.CreateVm) -> str:
        """The VM silo for this machine, empty for the engine's own."""

    def statuses(self) -> list[p.SiloStatus]: ...

    def query_history(self, ask: p.Sql, snapshots: dict[str, str], stop: Stop) -> QueryResult: ...

    def export_history(self, ask: p.ExportHistory, directory: Path, stop: Stop) -> p.Exported: ...

    def inject(self, host: str, fault: bytes) -> None: ...


class Gateway:
    """Observer of the engine's silo. `handle` is called from the clients' threads."""

    def __init__(
        self,
        silo: Silo,
        infrastructure: Infrastructure,
        *,
        version: str,
        run_sql: Callable[[p.Sql, Stop], QueryResult],
        export: Callable[[p.ExportHistory, Stop], p.Exported],
    ) -> None:
        self._silo = silo
        self._infrastructure = infrastructure
        self._version = version
        self._run_sql = run_sql
        self._export = export
        self._exported: dict[int, list[str]] = {}  # directories of copies, by the number of the connection
        self._connections: dict[int, Connection] = {}
        self._connection_count = 0
        self._lock = threading.Lock()
        self._watchers: dict[str, set[int]] = {}
        self._event_waiters: list[Callable[[], None]] = []
        # SQL has threads of its own: long questions must not keep a status or an event from anybody.
        self._questions = Questions()
        self._is_closed = False
        self._readers = ThreadPoolExecutor(READER_COUNT, thread_name_prefix="reader")
        self._touched: set[int] = set()
        self._ended: list[OperationRecord] = []
        self._authentication = Authentication(
            self._account, self._tell_engine, Verifiers(Path(infrastructure.directory)), PamAccounts()
        )
        silo.observer = self
        self._events = EventFeed(silo, self._in_reader, self._read_events)
        self._operations = OperationFeed(silo, self._in_reader, read_ended(silo.journal))

    def close(self) -> None:
        self._is_closed = True
        self._authentication.close()
        self._questions.close()
        self._readers.shutdown(wait=False, cancel_futures=True)

    # ------------------------------------------------------------------ connections

    def connect(self, make: Callable[[int], Connection]) -> Connection:
        with self._lock:
            self._connection_count += 1
            connection = make(self._connection_count)
            self._connections[connection.number] = connection
        return connection

    def disconnect(self, connection: Connection) -> None:
        with self._lock:
            self._connections.pop(connection.number, None)
            exported = self._exported.pop(connection.number, [])
        self._questions.forget(connection.number)
        for directory in exported:
            shutil.rmtree(directory, ignore_errors=True)

    def handle(self, connection: Connection, request: p.Request) -> None:
        ask, number = request.ask, request.number
        match ask:
            case p.Do(command=m.AddHost(backend="libvirt", fence_devices=[_, *_])):
                # Fence agents are asked what they take, which takes a moment.
                self._read(connection, number, lambda: self._do(connection, number, ask))
            case p.Do():
                self._on_do(connection, number, ask)
            case p.Watch():
                with self._lock:
                    self._watchers.setdefault(ask.operation_id, set()).add(connection.number)
                self._to_engine(connection, number, m.LookUpOperation(ask.operation_id))
            case p.Explain():
                self._to_engine(connection, number, m.ExplainPlacement(ask.vm))
            case p.Console():
                self._to_engine(connection, number, m.ShowConsole(ask.vm, ask.valid_s))
            case p.SetPassword() | p.LogOn():
                self._authentication.take(ask, self._client(connection, number, ask))
            case p.Hello():
                self._answer(connection, number, lambda: self._welcome(ask))
            case p.Sql():
                self._ask_sql(connection, number, ask)
            case p.ExportHistory():
                self._ask_export(connection, number, ask)
            case p.Cancel():
                self._questions.stop((connection.number, ask.number), "its client asked for that")
            case p.Events():
                self._read(connection, number, lambda: self._event_page(connection, number, ask))
            case p.Status():
                self._read(connection, number, self._status)
            case p.Inject():
                self._read(connection, number, lambda: self._inject(ask))
            case _:
                assert_never(ask)

    def _to_engine(self, connection: Connection, number: int, message: m.AnyMessage) -> None:
        sender = f"client/{connection.number}/{number}"
        self._silo.post(Envelope("engine", sender, sender, "", message))

    def _on_do(self, connection: Connection, number: int, ask: p.Do) -> None:
        try:
            self._do(connection, number, ask)
        except OlvmError as error:
            _refuse(connection, number, error)

    def _do(self, connection: Connection, number: int, ask: p.Do) -> None:
        command = ask.command
        # A silo is named after its host or machine, and a file after the silo: no name goes there unchecked.
        _check_open(command)
        if isinstance(command, m.AddHost):
            _check_names("host", command.name, command.silo)
            _check_fence_devices(command)
            silo = self._infrastructure.silo_for_host(command)
            command = msgspec.structs.replace(command, silo=silo)
        elif isinstance(command, m.CreateVm):
            _check_names("vm", command.name, command.silo)
            silo = self._infrastructure.silo_for_vm(command)
            command = msgspec.structs.replace(command, silo=silo)
        self._submit(connection, number, ask, command)

    def _submit(
        self,
        connection: Connection,
        number: int,
        ask: p.Do | p.SetPassword | p.LogOn,
        command: m.Command | m.TrustedCommand,
    ) -> None:
        sender = f"client/{connection.number}/{number}/{int(ask.watch)}"
        self._silo.post(Envelope("engine", sender, sender, "", m.Submit(command, ask.client_request_id)))

    # ------------------------------------------------------------------ passwords: in threads of their own

    def _client(self, connection: Connection, number: int, ask: p.SetPassword | p.LogOn) -> Client:
        return Client(
            submit=lambda command: self._submit(connection, number, ask, command),
            refuse=lambda error: _refuse(connection, number, error),
        )

    def _account(self, name: str) -> Account | None:
        rows = self._silo.journal.query(ACCOUNT_SQL, (name,)).rows
        return msgspec.convert(rows[0], Account) if rows else None

    def _tell_engine(self, message: Outbound) -> None:
        nobody = "client/0/0"  # connections are numbered from 1
        self._silo.post(Envelope("engine", nobody, f"gateway-{secrets.token_hex(8)}", "", message))

    # ------------------------------------------------------------------ the silo's side: in its thread

    def on_reply(self, address: str, message: m.AnyMessage) -> None:
        _, connection_number, number, *watch = address.split("/")
        connection = self._connections.get(int(connection_number))
        if connection is None:
            return  # the client has gone; the operation goes on
        if isinstance(message, m.OperationView) and message.finished_ns is None and watch[:1] == ["1"]:
            with self._lock:
                self._watchers.setdefault(message.id, set()).add(connection.number)
        body: Any = message
        connection.push(p.Answer(int(number), body))
        self._touched.add(connection.number)

    def on_committed(self, saved: Records, events: list[EventRecord]) -> None:
        for record in saved.get(OperationRecord, {}).values():
            assert isinstance(record, OperationRecord)
            if record.finished_ns is not None:
                self._ended.append(record)
                self._operations.committed(record)
        if events:
            self._events.committed(events)
            with self._lock:
                waiters, self._event_waiters = self._event_waiters, []
            for wake in waiters:
                wake()

    def on_released(self) -> None:
        """After the replies of a batch: an operation's end is pushed after its acceptance was answered."""
        ended, self._ended = self._ended, []
        for record in ended:
            with self._lock:
                watchers = self._watchers.pop(record.id, None)
            for number in watchers or ():
                connection = self._connections.get(number)
                if connection is not None:
                    connection.push(p.Answer(0, view_of(record)))
                    self._touched.add(number)
        touched, self._touched = self._touched, set()
        for number in touched:
            connection = self._connections.get(number)
            if connection is not None:
                connection.flush()

    def _in_reader(self, read: Callable[[], None]) -> None:
        """In a reader thread; once those have ended, nobody waits for it any more."""
        try:
            self._readers.submit(read)
        except RuntimeError:  # what a pool that was shut down raises
            if not self._is_closed:
                raise

    # ------------------------------------------------------------------ reads: in reader threads

    def _read(self, connection: Connection, number: int, produce: Callable[[], Any]) -> None:
        self._in_reader(lambda: self._answer(connection, number, produce))

    def _answer(self, connection: Connection, number: int, produce: Callable[[], Any]) -> None:
        body: Any
        try:
            body = produce()
        except OlvmError as error:
            body = m.Refusal(error.code, error.message)
        except Exception as fault:  # the supervisor of the readers: a client must get an answer
            log.exception("request %s failed", number)
            body = m.Refusal(OlvmError.code, f"the engine could not answer: {fault!r}")
        if body is not None:
            connection.push(p.Answer(number, body))
            connection.flush()

    def _welcome(self, ask: p.Hello) -> p.Welcome:
        if ask.version != p.PROTOCOL_VERSION:
            raise BadInput(
                f"the client speaks protocol {ask.version}, the engine of olvm {self._version} speaks "
                f"{p.PROTOCOL_VERSION}; install the same release on both sides"
            )
        return p.Welcome(p.PROTOCOL_VERSION, self._infrastructure.runtime_name, self._engine_epoch())

    def _engine_epoch(self) -> int:
        rows = self._silo.journal.query("select epoch from engine", ()).rows
        return int(str(rows[0][0])) if rows else 0

    def _ask_sql(self, connection: Connection, number: int, ask: p.Sql) -> None:
        try:
            bounded = checked_question(ask)
        except OlvmError as error:
            _refuse(connection, number, error)
            return
        self._question(connection, number, ask.timeout_s, lambda stop: p.Rows(self._run_sql(bounded, stop)))

    def _ask_export(self, connection: Connection, number: int, ask: p.ExportHistory) -> None:
        def produce(stop: Stop) -> p.Exported:
            checked_times(ask)
            exported = self._export(ask, stop)
            with self._lock:
                is_there = connection.number in self._connections
                if is_there:
                    self._exported.setdefault(connection.number, []).append(exported.directory)
            if not is_there:
                shutil.rmtree(exported.directory, ignore_errors=True)
            return exported

        self._question(connection, number, ask.timeout_s, produce)

    def _question(
        self, connection: Connection, number: int, timeout_s: float, produce: Callable[[Stop], Any]
    ) -> None:
        def answer(stop: Stop) -> None:
            self._answer(connection, number, lambda: produce(stop))

        try:
            self._questions.submit((connection.number, number), timeout_s, answer)
        except OlvmError as error:
            _refuse(connection, number, error)

    def _read_events(self, after: int, row_count_max: int) -> list[dict[str, object]]:
        table = self._silo.journal.query(
            f"select {EVENT_COLUMNS} from events where seq > ? order by seq limit {int(row_count_max)}",  # noqa: S608 - columns of ours
            (after,),
        )
        events = table.dicts()
        for event in events:
            event["details"] = msgspec.json.decode(str(event["details"] or "{}"))
        return events

    def _event_page(self, connection: Connection, number: int, ask: p.Events) -> p.EventPage | None:
        if not 1 <= ask.row_count_max <= SQL_ROWS_MAX:
            raise BadInput(f"events: row_count_max must be 1 to {SQL_ROWS_MAX}, got {ask.row_count_max}")
        events = self._read_events(ask.after, ask.row_count_max)
        if events or ask.wait_s <= 0:
            return p.EventPage(int(str(events[-1]["seq"])) if events else ask.after, events)
        # Nobody waits in a reader thread: the next commit with events asks again, or the timer answers empty.
        once = threading.Lock()

        def again() -> None:
            if once.acquire(blocking=False):
                timer.cancel()
                rest = msgspec.structs.replace(ask, wait_s=0.0)
                self._read(connection, number, lambda: self._event_page(connection, number, rest))

        timer = threading.Timer(min(ask.wait_s, 60.0), again)
        timer.daemon = True
        timer.start()
        with self._lock:
            self._event_waiters.append(again)
        if self._read_events(ask.after, 1):
            again()
        return None

    def _status(self) -> p.DataCenterStatus:
        return p.DataCenterStatus(
            self._infrastructure.directory,
            self._infrastructure.runtime_name,
            self._engine_epoch(),
            self._version,
            self._infrastructure.statuses(),
        )

    def _inject(self, ask: p.Inject) -> p.Done:
        self._infrastructure.inject(ask.host, ask.fault)
        return p.Done()


def _refuse(connection: Connection, number: int, error: OlvmError) -> None:
    connection.push(p.Answer(number, m.Refusal(error.code, error.message)))
    connection.flush()


def _check_open(command: m.Command | m.TrustedCommand) -> None:
    """Some commands are the gateway's own, once it has seen a password. A client in this process could name them."""
    is_logon = isinstance(command, m.VmTask) and command.verb == "log_on"
    is_verified = isinstance(command, m.CreateUser) and command.verifier != ""
    if is_logon or is_verified or isinstance(command, m.TrustedCommand):
        raise Denied(
            "who is logged on, or gets a password, is authenticated first; use `olvm vm logon VM --user USER` and "
            "`olvm user password USER`"
        )


def _check_fence_devices(command: m.AddHost) -> None:
    """Before anything of it is in a journal: a device may come with its password."""
    if command.backend != "libvirt":
        return
    for device in command.fence_devices:
        try:
            check_names(device)
            check_options(device)
        except BadInput as error:
            raise BadInput(f"host {command.name}: {error.message}") from error


def _check_names(kind: str, name: str, silo: str) -> None:
    check_name(kind, name)
    if silo:
        check_name("silo", silo)
