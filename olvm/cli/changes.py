"""Sends commands, waits for their operations and reports each: what every verb that changes something does.

Rule: an operation is durable once accepted. Whatever happens to this process afterwards, the report says so and
names the operation's id.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import msgspec

from olvm.api.data_center import DataCenter
from olvm.api.operation import Operation
from olvm.cli.failures import CommandFailed, Interrupted, exit_code_of, goes_on, line_of
from olvm.cli.options import Changing, OutputFormat
from olvm.cli.output import chosen_columns, write_rows
from olvm.model.errors import BadInput, OlvmError, WaitTimeout
from olvm.model.limits import SQL_SHORT_S
from olvm.model.messages import Command, OperationView
from olvm.model.records import ClusterRecord

# While it waits, a command asks this often whether the engine is still there and whether a push went missing.
ASK_AGAIN_S = 10.0
USUAL_COLUMNS = ("target_name", "kind", "status", "id")
KNOWN_COLUMNS = tuple(field.name for field in msgspec.structs.fields(OperationView))


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One command, and the words that name it to a person."""

    command: Command
    what: str


def carry_out(dc: DataCenter, asked: Iterable[Asked], options: Changing) -> int:
    """Send all, wait if the options say so, print the operations; a line on stderr for each that failed.

    Raises:
        CommandFailed: some failed; their code where they agree, otherwise 1.
        Interrupted: Ctrl-C; the operations go on.
    """
    chosen_columns(
        options.columns, KNOWN_COLUMNS, USUAL_COLUMNS
    )  # a column that is not: before anything is sent
    with dc.pipelined():
        sent = [(one.what, dc.submit(one.command, one.what)) for one in asked]
    return follow(sent, options)


def follow(sent: Sequence[tuple[str, Operation]], options: Changing) -> int:
    """The rest of `carry_out`, of operations that are on their way: what each is called, and itself."""
    columns = chosen_columns(options.columns, KNOWN_COLUMNS, USUAL_COLUMNS)
    failed: list[OlvmError] = []
    accepted: list[tuple[str, Operation]] = []
    with _ids_when_interrupted(accepted):
        _collect(sent, accepted, failed)
        _wait(accepted, options, failed)
    rows = [msgspec.structs.asdict(operation.view) for _, operation in accepted]
    return report(rows, columns, options.output, failed)


def report(
    rows: Sequence[dict[str, object]],
    columns: Sequence[str],
    output: OutputFormat,
    failed: Sequence[OlvmError],
) -> int:
    """A line on stderr for each failure, then the operations; raises `CommandFailed` if there was any."""
    for error in failed:
        print(f"olvm: {line_of(error)}", file=sys.stderr)
    try:
        if rows or output != "table":  # headings over nothing would only be in the way of the errors
            write_rows(rows, columns, output)
    finally:  # also when nobody reads the rows: what failed has failed
        if failed:
            raise CommandFailed(exit_code_of(failed))
    return 0


def _collect(
    sent: Sequence[tuple[str, Operation]], accepted: list[tuple[str, Operation]], failed: list[OlvmError]
) -> None:
    """Add those that the engine took to `accepted` as it does, and what it refused to `failed`."""
    for what, operation in sent:
        try:
            accepted.append((what, operation.accepted()))
        except OlvmError as error:
            failed.append(error)


def _wait(accepted: Sequence[tuple[str, Operation]], options: Changing, failed: list[OlvmError]) -> None:
    if not options.wait:
        return
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    unfinished = []
    for what, operation in accepted:
        try:
            if not wait_until(operation, deadline):
                unfinished.append((what, operation))
        except OlvmError as error:
            failed.append(error)
    if unfinished:
        assert options.timeout is not None
        names = ", ".join(what for what, _ in unfinished[:3]) + (", …" if len(unfinished) > 3 else "")
        rest = goes_on([operation.id for _, operation in unfinished])
        failed.append(WaitTimeout(f"{names}: not ended within {options.timeout:g} s; {rest}"))


def wait_until(operation: Operation, deadline: float | None) -> bool:
    """Wait for the operation's end; False at the deadline (of the monotonic clock). Raises what it failed with.

    Raises:
        EngineUnreachable: the engine went away and did not come back.
    """
    while True:
        left_s = ASK_AGAIN_S if deadline is None else min(ASK_AGAIN_S, max(0.0, deadline - time.monotonic()))
        try:
            operation.wait(left_s)
        except WaitTimeout:
            if operation.done:  # it ended with a WaitTimeout of its own, or just now
                operation.wait(0)
                return True
            if deadline is not None and time.monotonic() >= deadline:
                return False
            operation.refresh()
        else:
            return True


@contextlib.contextmanager
def _ids_when_interrupted(accepted: Sequence[tuple[str, Operation]]) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted([operation.id for _, operation in accepted if not operation.done]) from None


# ---------------------------------------------------------------- what verbs share


def once_each(names: Sequence[str]) -> list[str]:
    """The names in their order, each once."""
    return list(dict.fromkeys(names))


def confirm_removal(kind: str, names: Sequence[str], yes: bool) -> None:
    """As `confirm`, of a removal."""
    listed = ", ".join(names)
    confirm(f"Remove {kind} {listed}?", f"removing {kind} {listed}", yes, "nothing was removed")


def confirm(question: str, doing: str, yes: bool, otherwise: str = "nothing was done") -> None:
    """Ask on a terminal; elsewhere `--yes` must have been given.

    Raises:
        BadInput: nobody can be asked.
        CommandFailed: the answer was no.
    """
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise BadInput(f"{doing} needs --yes where nobody can be asked")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        print(f"olvm: {otherwise}", file=sys.stderr)
        raise CommandFailed(1)


def cluster_or_only(dc: DataCenter, cluster: str | None) -> str:
    """The cluster that was named, or the only one there is.

    Raises:
        BadInput: none was named, and there are none or several.
    """
    if cluster:
        return cluster
    query = f"select name from {ClusterRecord.TABLE} order by name"  # noqa: S608 - a name of ours
    names = [str(name) for (name,) in dc.sql(query, timeout=SQL_SHORT_S).rows()]
    if len(names) == 1:
        return names[0]
    if not names:
        raise BadInput("there is no cluster yet; create one with `olvm cluster create NAME`")
    raise BadInput(f"there are {len(names)} clusters; say which with --cluster: {', '.join(names[:10])}")
