"""What becomes of an ask with a password: who is let on, what is said to those who are not, and what is counted.

Checks run in threads of the authentication's own, as they do in the gateway; the clock is the test's.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.authentication import DENIED, Account, Authentication, Client, Outbound
from actors.pam_accounts import PamAccounts
from actors.verifiers import KEY_FILE, Cost, Verifiers
from olvm.model import client_protocol as p
from olvm.model import messages as m
from olvm.model.errors import BadInput, Conflict, Denied, EngineUnreachable, NotSupportedYet, OlvmError
from olvm.model.limits import (
    LOGON_FAILURES_ALERT,
    LOGON_FAILURES_FREE,
    LOGON_UNKNOWN_TOLD_S,
    LOGONS_WAITING_MAX,
)

QUICK = Cost(passes=1, memory_kib=64, lanes=1)
STAND_IN = Path(__file__).with_name("stand_in_pam.py")
SECRET = "correct horse battery"
ANSWER_S = 30.0

Outcome = m.TrustedCommand | m.CreateUser | OlvmError


class Bench:
    """An authentication with users alice (local), carl (no password), dora (disabled), paul (PAM)."""

    def __init__(self, directory: Path) -> None:
        self.now_s = 1000.0
        self.told: queue.Queue[Outbound] = queue.Queue()
        self.verifiers = Verifiers(directory, QUICK)
        self.accounts = {
            "alice": Account("alice", "local", "active", 3, self.verifiers.make("alice", SECRET)),
            "carl": Account("carl", "local", "active", 1, ""),
            "dora": Account("dora", "local", "disabled", 2, self.verifiers.make("dora", SECRET)),
            "paul": Account("paul", "pam", "active", 1, ""),
            "petra": Account("petra", "pam", "disabled", 2, ""),
        }
        self.broken: OlvmError | RuntimeError | None = None
        pam = PamAccounts("olvm", 20.0, STAND_IN)
        self.one = Authentication(self._find, self.told.put, self.verifiers, pam, lambda: self.now_s)

    def _find(self, name: str) -> Account | None:
        if self.broken is not None:
            raise self.broken
        return self.accounts.get(name)

    def send(self, ask: p.SetPassword | p.LogOn) -> queue.Queue[Outcome]:
        answer: queue.Queue[Outcome] = queue.Queue()
        self.one.take(ask, Client(answer.put, answer.put))
        return answer

    def outcome(self, ask: p.SetPassword | p.LogOn) -> Outcome:
        return self.send(ask).get(timeout=ANSWER_S)

    def log_on(self, user: str, password: str = SECRET, session: str = "") -> Outcome:
        return self.outcome(p.LogOn("db", user, password, "request", session))

    def denials(self) -> list[Outbound]:
        return [self.told.get_nowait() for _ in range(self.told.qsize())]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.one.close()


def refused(outcome: Outcome) -> tuple[type[object], str]:
    assert isinstance(outcome, OlvmError), outcome
    return type(outcome), outcome.message


# ---------------------------------------------------------------- let on


def test_logon_with_the_right_password_goes_on_as_the_user_stood(bench: Bench) -> None:
    assert bench.log_on("alice", session="ttyS0") == m.LogUserOn("db", "alice", 3, "ttyS0")
    assert bench.denials() == []


def test_logon_of_a_pam_account_is_pams_to_say(bench: Bench) -> None:
    assert bench.log_on("paul", "right") == m.LogUserOn("db", "paul", 1)
    assert refused(bench.log_on("paul", "wrong")) == (Denied, DENIED)
    assert bench.denials() == [m.UserDenied("paul", "db", "wrong password", 1)]


def test_logon_with_a_stale_verifier_has_it_renewed(bench: Bench, tmp_path: Path) -> None:
    older = Verifiers(tmp_path, Cost(passes=2, memory_kib=64, lanes=1))
    kept = older.make("alice", SECRET)
    bench.accounts["alice"] = bench.accounts["alice"]._replace(verifier=kept)
    assert isinstance(bench.log_on("alice"), m.LogUserOn)
    renewed = bench.told.get(timeout=ANSWER_S)
    assert isinstance(renewed, m.Submit)
    assert isinstance(renewed.command, m.SetVerifier)
    assert (renewed.command.name, renewed.command.revision) == ("alice", 3)
    assert bench.verifiers.fits("alice", SECRET, renewed.command.verifier)
    assert not bench.verifiers.is_stale(renewed.command.verifier)


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("alice", "wrong", "wrong password"),
        ("carl", SECRET, "it has no password"),
        ("dora", SECRET, "it is disabled"),
        ("petra", "right", "it is disabled"),
    ],
)
def test_logon_refused_says_one_sentence_and_tells_the_engine_why(
    user: str, password: str, reason: str, bench: Bench
) -> None:
    assert refused(bench.log_on(user, password)) == (Denied, DENIED)
    assert bench.denials() == [m.UserDenied(user, "db", reason, 1)]


def test_logon_of_a_user_who_does_not_exist_sounds_alike_and_its_name_is_not_told(bench: Bench) -> None:
    """People type passwords where names go."""
    assert refused(bench.log_on(SECRET, "x")) == (Denied, DENIED)
    (told,) = bench.denials()
    assert SECRET not in repr(told)
    assert told == m.UserDenied("", "", "no such user", 1)


def test_logons_of_users_who_do_not_exist_are_told_now_and_then_with_their_number(bench: Bench) -> None:
    for number in range(20):
        bench.log_on(f"ghost-{number}", "x")
    assert bench.denials() == [m.UserDenied("", "", "no such user", 1)]
    bench.now_s += LOGON_UNKNOWN_TOLD_S
    bench.log_on("ghost-20", "x")
    assert bench.denials() == [m.UserDenied("", "", "no such user", 20)]


@pytest.mark.parametrize("user", ["alice", "ghost"])
def test_logons_that_fail_must_wait_whoever_it_is_and_are_then_not_looked_at(user: str, bench: Bench) -> None:
    for _ in range(LOGON_FAILURES_FREE):
        assert refused(bench.log_on(user, "wrong")) == (Denied, DENIED)
    kind, message = refused(bench.log_on(user, SECRET))
    assert (kind, "try again in 1 s" in message) == (Denied, True)
    bench.now_s += 1.0
    assert (bench.log_on(user, SECRET) == m.LogUserOn("db", "alice", 3)) == (user == "alice")


def test_logon_that_succeeds_forgets_the_failures_before_it(bench: Bench) -> None:
    for _ in range(3):
        for _ in range(LOGON_FAILURES_FREE - 1):
            bench.log_on("alice", "wrong")
        assert isinstance(bench.log_on("alice"), m.LogUserOn)


def test_logons_that_go_on_failing_are_an_alert_once(bench: Bench) -> None:
    for _ in range(LOGON_FAILURES_ALERT + 2):
        bench.log_on("alice", "wrong")
        bench.now_s += 1000.0
    alerts = [told.alert for told in bench.denials() if isinstance(told, m.UserDenied)]
    assert alerts == [number == LOGON_FAILURES_ALERT for number in range(1, LOGON_FAILURES_ALERT + 3)]


def test_logons_tried_at_once_are_not_all_free(bench: Bench) -> None:
    answers = [bench.send(p.LogOn("db", "alice", "wrong", str(n))) for n in range(20)]
    outcomes = [refused(answer.get(timeout=ANSWER_S)) for answer in answers]
    assert outcomes.count((Denied, DENIED)) == LOGON_FAILURES_FREE
    assert bench.told.qsize() == LOGON_FAILURES_FREE


# ---------------------------------------------------------------- what cannot be found out


def test_logon_that_pam_could_not_check_is_no_failure_of_the_user(bench: Bench) -> None:
    for _ in range(LOGON_FAILURES_FREE + 2):
        assert refused(bench.log_on("paul", "exit 3"))[0] is NotSupportedYet
    assert bench.log_on("paul", "right") == m.LogUserOn("db", "paul", 1)
    assert bench.denials() == []


def test_logon_after_the_key_was_lost_is_denied_and_the_log_says_why(
    tmp_path: Path, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / KEY_FILE).unlink()
    bench.one.close()
    later = Authentication(bench._find, bench.told.put, Verifiers(tmp_path, QUICK), PamAccounts())
    answer: queue.Queue[Outcome] = queue.Queue()
    with caplog.at_level(logging.WARNING):
        later.take(p.LogOn("db", "alice", SECRET, "r"), Client(answer.put, answer.put))
        assert refused(answer.get(timeout=ANSWER_S)) == (Denied, DENIED)
    later.close()
    assert KEY_FILE in caplog.text
    (told,) = bench.denials()
    assert isinstance(told, m.UserDenied)
    assert "another key" in told.reason


@pytest.mark.parametrize("broken", [Conflict("the file is closed"), RuntimeError(SECRET)])
def test_logon_when_the_engine_cannot_look_up_gets_an_answer_without_the_password(
    broken: OlvmError | RuntimeError, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.broken = broken
    outcome = bench.log_on("alice")
    assert SECRET not in refused(outcome)[1]
    assert SECRET not in caplog.text
    assert isinstance(broken, OlvmError) or "RuntimeError" in caplog.text


# ---------------------------------------------------------------- passwords


def test_password_set_leaves_as_a_verifier(bench: Bench) -> None:
    command = bench.outcome(p.SetPassword("alice", "another one", "r"))
    assert isinstance(command, m.SetVerifier)
    assert (command.name, command.revision) == ("alice", 0)
    assert bench.verifiers.fits("alice", "another one", command.verifier)
    assert "another one" not in command.verifier


def test_password_of_a_new_user_is_created_with_it(bench: Bench) -> None:
    create = m.CreateUser("erin", guest_user="e")
    command = bench.outcome(p.SetPassword("erin", SECRET, "r", create))
    assert isinstance(command, m.CreateUser)
    assert (command.name, command.kind, command.guest_user) == ("erin", "local", "e")
    assert bench.verifiers.fits("erin", SECRET, command.verifier)


BAD: dict[str, p.SetPassword | p.LogOn] = {
    "empty password": p.SetPassword("alice", "", "r"),
    "password with a line break": p.SetPassword("alice", f"{SECRET}\n", "r"),
    "user of PAM": p.SetPassword("erin", SECRET, "r", m.CreateUser("erin", "pam")),
    "two names": p.SetPassword("erin", SECRET, "r", m.CreateUser("mallory")),
    "verifier from outside": p.SetPassword("erin", SECRET, "r", m.CreateUser("erin", verifier="[]")),
    "logon with no password": p.LogOn("db", "alice", "", "r"),
    "logon with a huge password": p.LogOn("db", "alice", SECRET * 1000, "r"),
    "session that is none": p.LogOn("db", "alice", SECRET, "r", "tty S0"),
}


@pytest.mark.parametrize("case", BAD)
def test_ask_that_cannot_be_is_refused_and_counts_for_nothing(case: str, bench: Bench) -> None:
    kind, message = refused(bench.outcome(BAD[case]))
    assert kind is BadInput
    assert SECRET not in message
    assert bench.denials() == []


# ---------------------------------------------------------------- bounds and ends


def test_passwords_that_wait_are_bounded(bench: Bench, tmp_path: Path) -> None:
    """PAM hangs: as many as it may be asked at once hang with it, others wait, and more are refused at once."""
    hung = [
        bench.send(p.LogOn("db", "paul", f"hang {tmp_path / str(n)}", str(n)))
        for n in range(LOGON_FAILURES_FREE)
    ]
    many = [bench.send(p.LogOn("db", f"ghost-{n}", "x", str(n))) for n in range(LOGONS_WAITING_MAX * 2)]
    kinds = {refused(answer.get(timeout=ANSWER_S))[0] for answer in many}
    assert kinds <= {Denied, Conflict}
    assert isinstance(bench.log_on("alice"), m.LogUserOn), "PAM that hangs is felt by its own users alone"
    bench.one.close()
    assert {refused(answer.get(timeout=ANSWER_S))[0] for answer in hung} <= {
        OlvmError,
        *OlvmError.__subclasses__(),
    }


def test_asks_that_wait_at_the_end_are_all_answered(bench: Bench) -> None:
    answers = [
        bench.send(p.SetPassword("alice", SECRET, str(number))) for number in range(LOGONS_WAITING_MAX)
    ]
    bench.one.close()
    kinds = {type(answer.get(timeout=ANSWER_S)) for answer in answers}
    assert kinds <= {m.SetVerifier, EngineUnreachable}
    assert EngineUnreachable in kinds


def test_ask_after_the_end_is_refused(bench: Bench) -> None:
    bench.one.close()
    assert refused(bench.log_on("alice"))[0] is EngineUnreachable


@pytest.mark.parametrize(
    "ask", [p.LogOn("db", "alice", SECRET, "r"), p.SetPassword("alice", SECRET, "r", m.CreateUser("alice"))]
)
def test_ask_with_a_password_shows_nothing_of_itself(ask: p.LogOn | p.SetPassword) -> None:
    for shown in (repr(ask), str(ask), repr(p.Request(7, ask)), str(ask.__rich_repr__()), f"{[ask]}"):
        assert SECRET not in shown
        assert "alice" not in shown
