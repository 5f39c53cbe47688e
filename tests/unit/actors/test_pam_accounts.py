"""What becomes of each way in which the process that asks PAM can end."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.pam_accounts import PamAccounts
from actors.pam_check import CODE_BASE, NO_LIBRARY, NO_PACKAGE
from olvm.model.errors import NotSupportedYet, OlvmError, OperationFailed
from tests.contracts.fault_driver import poll

STAND_IN = Path(__file__).with_name("stand_in_pam.py")


def accounts(timeout_s: float = 20.0) -> PamAccounts:
    return PamAccounts("olvm", timeout_s, STAND_IN)


def is_gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextlib.contextmanager
def hanging(asked: PamAccounts, note: Path) -> Iterator[list[str]]:
    """Inside, a question is on its way and is not answered; the list is what it was answered with in the end."""
    told: list[str] = []

    def ask() -> None:
        try:
            asked.refusal("alice", f"hang {note}")
        except OlvmError as error:
            told.append(error.message)

    asking = threading.Thread(target=ask)
    asking.start()
    poll(lambda: note.exists() and note.read_text() != "")
    yield told
    asking.join(20)


def test_pam_accepts_a_right_password() -> None:
    assert accounts().refusal("alice", "right") == ""


@pytest.mark.parametrize(
    ("code", "reason"), [(7, "wrong password"), (10, "no such account"), (13, "account expired")]
)
def test_pam_refusal_has_its_reason(code: int, reason: str) -> None:
    assert accounts().refusal("alice", f"exit {CODE_BASE + code}") == reason


@pytest.mark.parametrize(
    ("ending", "error", "words"),
    [
        (NO_PACKAGE, NotSupportedYet, "python-pam"),
        (NO_LIBRARY, NotSupportedYet, "libpam"),
        (CODE_BASE + 9, OperationFailed, "code 9"),
        (1, OperationFailed, "ended with 1"),
    ],
)
def test_pam_that_cannot_find_out_is_no_refusal(ending: int, error: type[OlvmError], words: str) -> None:
    with pytest.raises(error, match=words) as told:
        accounts().refusal("alice", f"exit {ending}")
    assert "exit" not in told.value.message


def test_pam_that_hangs_is_given_up_and_leaves_nothing(tmp_path: Path) -> None:
    note = tmp_path / "pids"
    with pytest.raises(OperationFailed, match="did not answer"):
        accounts(timeout_s=2.0).refusal("alice", f"hang {note}")
    assert note.exists(), "the stand-in did not start in time"
    for pid in map(int, note.read_text().split()):
        poll(lambda pid=pid: is_gone(pid))  # type: ignore[misc]


def test_pam_that_hangs_is_ended_when_the_engine_stops(tmp_path: Path) -> None:
    asked, note = accounts(timeout_s=60.0), tmp_path / "pids"
    with hanging(asked, note) as told:
        asked.close()
    assert len(told) == 1
    with pytest.raises(OperationFailed):
        asked.refusal("alice", "right")


def test_pam_program_prints_nothing_of_a_module(capfd: pytest.CaptureFixture[str]) -> None:
    accounts().refusal("alice", "right")
    assert capfd.readouterr() == ("", "")


def test_password_is_no_argument_of_the_program(tmp_path: Path) -> None:
    asked, note = accounts(timeout_s=60.0), tmp_path / "pids"
    with hanging(asked, note):
        pid = int(note.read_text().split()[0])
        for place in ("cmdline", "environ"):
            assert os.fsencode(note) not in Path(f"/proc/{pid}/{place}").read_bytes()
        asked.close()
