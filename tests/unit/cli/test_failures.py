"""One line for each failure, and its exit code."""

from __future__ import annotations

import errno

import pytest

from olvm.cli import main
from olvm.cli.application import app
from olvm.cli.failures import Interrupted, exit_code_of, goes_on, line_of
from olvm.model.errors import BadInput, Conflict, NoCapacity, NotFound, OlvmError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NotFound("vm a does not exist;\n look again"), "vm a does not exist; look again"),
        (KeyboardInterrupt(), "interrupted"),
        (
            Interrupted(["op-1"]),
            "interrupted; the operation goes on; wait with `olvm operation wait op-1`",
        ),
        (Interrupted([]), "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "cannot write the output: No space left on device",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied"),
        (
            KeyError("name"),
            "internal error, KeyError: 'name'; run it again with -v and report what it shows",
        ),
    ],
)
def test_failure_reads_as_one_line(error: BaseException, line: str) -> None:
    assert line_of(error) == line


def test_many_operations_that_go_on_are_counted_and_some_named() -> None:
    ids = [f"op-{number}" for number in range(7)]
    assert goes_on(ids) == (
        "7 operations go on (and 2 more); wait with `olvm operation wait op-0 op-1 op-2 op-3 op-4`"
    )


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([NotFound("a"), NotFound("b")], 3),
        ([Conflict("a"), NoCapacity("b")], 4),
        ([NotFound("a"), Conflict("b")], 1),
        ([OlvmError("a")], 1),
        ([BadInput("a")], 2),
    ],
)
def test_exit_code_of_several_failures_is_theirs_where_they_agree(errors: list[OlvmError], code: int) -> None:
    assert exit_code_of(errors) == code


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    nouns = [name for name in app if not name.startswith("-")]
    assert {"vm", "host", "sql", "report"} <= set(nouns)
    for noun in nouns:
        assert noun in listed
        assert main([noun, "--help"]) == 0
        assert f"Usage: olvm {noun}" in capsys.readouterr().out
