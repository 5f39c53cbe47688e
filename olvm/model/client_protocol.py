"""What a client and the engine's gateway say to each other over the local socket.

Each frame is four bytes of length (big-endian) and a msgpack array. The client numbers its requests; an answer
carries the number, a push carries 0. The same structs serve a client in the engine's own process, unencoded.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from olvm.model import messages as m
from olvm.model.table import QueryResult

PROTOCOL_VERSION = 2


class Ask(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of what a client asks."""


class Hello(Ask, frozen=True):
    version: int


class Do(Ask, frozen=True):
    """Submit a command. `watch`: push the operation when it has ended."""

    command: m.Command
    client_request_id: str
    watch: bool = True


class Watch(Ask, frozen=True):
    """Answered with the operation as it stands; if it is open, its end is pushed."""

    operation_id: str


class Sql(Ask, frozen=True):
    sql: str
    params: list[Any] = []
    row_count_max: int = 100_000
    timeout_s: float = 60.0


class ExportHistory(Ask, frozen=True):
    """A copy of history as of one moment; answered with Exported. The client takes it away before it leaves.

    `from_ns` and `to_ns` bound samples, roll-ups and events: from the first on, before the second. `Cancel` ends it.
    """

    format: Literal["duckdb", "parquet"] = "duckdb"
    from_ns: int | None = None
    to_ns: int | None = None
    timeout_s: float = 3600.0


class Cancel(Ask, frozen=True):
    """Stop a question of this client that has not been answered. Not answered itself; the question is, by a refusal."""

    number: int


class Explain(Ask, frozen=True):
    vm: str


class Console(Ask, frozen=True):
    """Answered with a ConsoleTicket, whose ticket is a password good for `valid_s` seconds."""

    vm: str
    valid_s: int = 120


class Confidential(Ask, frozen=True):
    """Carries a password: the gateway uses it up. No actor, record or journal knows such a type, and no printed form
    of it shows any field.
    """

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


class SetPassword(Confidential, frozen=True):
    """Answered as `Do`. `create`: the user is created with it, or not at all."""

    user: str
    password: str
    client_request_id: str
    create: m.CreateUser | None = None
    watch: bool = True


class LogOn(Confidential, frozen=True):
    """Log a user on inside a machine, if the password is the user's. Answered as `Do`; Denied says no more."""

    vm: str
    user: str
    password: str
    client_request_id: str
    session: str = ""  # empty: the guest's own choice
    timeout_s: float | None = None
    watch: bool = True


class Events(Ask, frozen=True):
    """Committed events after a cursor, in order; waits up to `wait_s` for the first one."""

    after: int = 0
    row_count_max: int = 1000
    wait_s: float = 0.0


class Status(Ask, frozen=True):
    pass


class Inject(Ask, frozen=True):
    """Plant a fault in a simulated host; `fault` is JSON of hypervisor_backends.simulated's Fault."""

    host: str
    fault: bytes


class Request(msgspec.Struct, frozen=True, array_like=True):
    number: int
    ask: (
        Hello
        | Do
        | Watch
        | Sql
        | ExportHistory
        | Cancel
        | Explain
        | Console
        | SetPassword
        | LogOn
        | Events
        | Status
        | Inject
    )


class SiloStatus(msgspec.Struct, frozen=True, array_like=True):
    """`pid` 0 and `alive` false: the silo did not answer."""

    name: str
    alive: bool
    pid: int = 0
    actors: int = 0
    queue_length: int = 0
    unacknowledged: int = 0
    turns: int = 0
    commits: int = 0
    faults: int = 0
    journal_seq: int = 0
    journal_rows: int = 0
    journal_bytes: int = 0
    started_ns: int = 0
    rss_bytes: int = 0
    note: str = ""
    counters: dict[
        str, int
    ] = {}  # of the telemetry silo: what its history took, refused and lost since it started


class DataCenterStatus(msgspec.Struct, frozen=True, array_like=True, tag=True):
    directory: str
    runtime: str
    engine_epoch: int
    version: str
    silos: list[SiloStatus]


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag=True):
    version: int
    runtime: str
    engine_epoch: int


class EventPage(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`cursor` is where to go on."""

    cursor: int
    events: list[dict[str, Any]]


class Rows(msgspec.Struct, frozen=True, array_like=True, tag=True):
    table: QueryResult


class Exported(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """`directory` is on this machine, and removed when the client leaves."""

    directory: str
    rows_by_table: dict[str, int]
    byte_count: int


class Done(msgspec.Struct, frozen=True, array_like=True, tag=True):
    pass


class Answer(msgspec.Struct, frozen=True, array_like=True):
    number: int
    body: (
        m.OperationView
        | m.Refusal
        | m.PlacementExplanation
        | m.ConsoleTicket
        | DataCenterStatus
        | Welcome
        | EventPage
        | Rows
        | Exported
        | Done
    )
