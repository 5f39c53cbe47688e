"""What runs in the engine's process beside its silo: the gateway, its socket, and SQL over both files.

A runtime supplies `Infrastructure`; everything here is the same in all of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from actors.assembly import record_types
from actors.client_socket import SocketServer
from actors.gateway import Gateway, Infrastructure
from actors.node import SNAPSHOTS, Node
from olvm.journal.snapshot import SqlParser, write_parquet
from olvm.model import messages as m
from olvm.model.client_protocol import Exported, ExportHistory, SiloStatus, Sql
from olvm.model.config import Config
from olvm.model.errors import JournalUnwritable
from olvm.model.socket_path import SOCKET_NAME
from olvm.model.table import QueryResult
from olvm.model.user_records import HIDDEN_TABLES
from olvm.stopping import Stop
from olvm.version import VERSION

ENGINE_TABLES = frozenset(
    {kind.TABLE for kind in record_types("engine")} | {"journal", "outbox", "meta", "baseline"}
)
# `history.events` names the history's table where the engine has one of the same name.
HISTORY_QUALIFIED = re.compile(r"\bhistory\s*\.\s*\"?(\w+)", re.IGNORECASE)


class EngineProcess:
    """The engine's silo, open for clients."""

    def __init__(self, node: Node, infrastructure: Infrastructure) -> None:
        self.node = node
        self._infrastructure = infrastructure
        self.gateway = Gateway(
            node.runner.silo,
            infrastructure,
            version=VERSION,
            run_sql=self.run_sql,
            export=self.export_history,
        )
        self._socket: SocketServer | None = None
        self._parser = SqlParser()

    def start(self) -> None:
        snapshots = self.node.directory / SNAPSHOTS
        shutil.rmtree(snapshots, ignore_errors=True)  # of an engine that was killed
        snapshots.mkdir(mode=0o700, exist_ok=True)
        self.node.start()
        self._socket = SocketServer(self.node.directory / SOCKET_NAME, self.gateway)

    def stop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self.gateway.close()
        self.node.stop()

    # ------------------------------------------------------------------ SQL over engine and history

    def run_sql(self, ask: Sql, stop: Stop) -> QueryResult:
        """Answer from the file that holds the tables; for both, history joins snapshots of the engine's."""
        sql = ask.sql
        names = self._parser.table_names(sql)
        self._parser.check_shown(sql, HIDDEN_TABLES)
        said_history = {match.lower() for match in HISTORY_QUALIFIED.findall(sql)}
        to_history = (names - ENGINE_TABLES) | (names & said_history)
        journal = self.node.runner.silo.journal
        if not to_history:
            return journal.query(
                sql, ask.params, row_count_max=ask.row_count_max, timeout_s=ask.timeout_s, stop=stop
            )
        mine = names - to_history
        with self._snapshots(mine, stop) as snapshots:
            return self._infrastructure.query_history(ask, snapshots, stop)

    def export_history(self, ask: ExportHistory, stop: Stop) -> Exported:
        """A copy of history in a new directory, which is the caller's to remove."""
        directory = Path(tempfile.mkdtemp(prefix="export-", dir=self.node.directory / SNAPSHOTS))
        try:
            return self._infrastructure.export_history(ask, directory, stop)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise

    @contextlib.contextmanager
    def _snapshots(self, tables: set[str], stop: Stop) -> Any:
        journal = self.node.runner.silo.journal
        if not tables:
            yield {}
            return
        place = self.node.directory / SNAPSHOTS
        with tempfile.TemporaryDirectory(dir=place) as directory:
            snapshots: dict[str, str] = {}
            for table in sorted(tables):
                path = Path(directory) / f"{table}.parquet"
                rows = journal.query(f'select * from "{table}"', stop=stop)  # noqa: S608 - a name of ours
                write_parquet(rows, path)
                snapshots[table] = str(path)
            yield snapshots


class SiloNames:
    """Which silo takes the next host or machine. Names are kept in the records; this only spreads new ones."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._next_host = 0
        self._next_vm = 0

    def for_host(self, command: m.AddHost) -> str:
        if command.silo:
            return command.silo
        if command.dedicated or command.backend != "simulated":
            return f"host-{command.name}-own"
        self._next_host += 1
        return f"host-{(self._next_host - 1) % self._config.host_silos + 1}"

    def for_vm(self, command: m.CreateVm) -> str:
        if command.silo:
            return command.silo
        if command.dedicated:
            return f"vms-{command.name}-own"
        if self._config.vm_silos == 0:
            return ""
        self._next_vm += 1
        return f"vms-{(self._next_vm - 1) % self._config.vm_silos + 1}"


def silos_on_record(node: Node) -> list[str]:
    """The silos that hosts and machines of this data center live in."""
    sql = "select distinct silo from (select silo from hosts union all select silo from vms) where silo <> ''"
    rows = node.runner.silo.journal.query(sql, ()).rows
    return sorted(str(row[0]) for row in rows)


def check_private(directory: Path) -> None:
    """Make the data center's directory, readable by its owner only."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.chmod(directory, 0o700)
    except OSError as error:
        raise JournalUnwritable(
            f"data center directory {directory} cannot be used ({error.strerror}); "
            "choose another one or mend its permissions"
        ) from error


def dead_status(name: str, note: str) -> SiloStatus:
    return SiloStatus(name=name, alive=False, note=note)
