"""The engine's book of users: what is accepted, what is refused and leaves no trace, and who is let into a machine."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from actors.behaviour import Turn
from actors.engine import Engine
from olvm.model import messages as m
from olvm.model.errors import BadInput
from olvm.model.records import EngineRecord, OperationRecord
from olvm.model.user_names import check_guest_user, check_password, check_session
from olvm.model.user_records import UserRecord, UserVerifierRecord
from tests.builders import create_vm, encoded, sent_to, turn

VERIFIER = "[of a password]"


def engine() -> Engine:
    """With machine db, and users alice (a password), carl (none) and paul (PAM)."""
    made = Engine(EngineRecord(), {}, {})
    for command in (
        m.CreateCluster("prod"),
        create_vm("db"),
        m.CreateUser("alice", verifier=VERIFIER),
        m.CreateUser("carl", guest_user="c.carlson"),
        m.CreateUser("paul", "pam"),
    ):
        accept(made, command)
    return made


def give(one: Engine, message: m.AnyMessage) -> Turn:
    done = turn(me="engine", sender="client/1")
    ids = iter(f"id-{one.record.accepted_count}-{number}" for number in range(9))
    done.new_id = lambda: next(ids)
    one.handle(message, done)
    return done


def accept(one: Engine, command: m.Command | m.TrustedCommand) -> Turn:
    done = give(one, m.Submit(command))
    (answer,) = sent_to(done, "client/1")
    assert isinstance(answer, m.OperationView), answer
    return done


def book(one: Engine) -> tuple[list[bytes], list[bytes]]:
    users, verifiers = one.users.by_name.values(), one.users.verifiers.values()
    return [encoded(user) for user in users], [encoded(verifier) for verifier in verifiers]


def codes(done: Turn) -> list[tuple[str, str]]:
    return [(event.code, event.severity) for event in done.events]


def log_on(**fields: Any) -> m.LogUserOn:
    base: dict[str, Any] = {"vm": "db", "user": "alice", "revision": 1}
    return m.LogUserOn(**(base | fields))


# ---------------------------------------------------------------- accepted


def test_user_created_with_a_verifier_keeps_it_in_a_table_of_its_own() -> None:
    one = engine()
    done = accept(one, m.CreateUser("dora", verifier=VERIFIER))
    (user,) = [record for record in done.saved if isinstance(record, UserRecord)]
    (kept,) = [record for record in done.saved if isinstance(record, UserVerifierRecord)]
    assert (user.name, user.kind, user.status, user.guest_user) == ("dora", "local", "active", "dora")
    assert user.password_set_ns == user.created_ns == done.now_ns
    assert (kept.name, kept.verifier) == ("dora", VERIFIER)
    assert VERIFIER.encode() not in encoded(user)
    assert codes(done) == [("user_created", "normal")]
    (operation,) = [record for record in done.saved if isinstance(record, OperationRecord)]
    assert (operation.kind, operation.target_kind, operation.target_name) == ("create_user", "user", "dora")
    assert sent_to(done, "engine") == [m.OperationEnded(operation.id, True)]


def test_user_changed_gets_a_new_revision_and_says_what_changed() -> None:
    one = engine()
    both = accept(one, m.ChangeUser("alice", "disabled", "al"))
    assert codes(both) == [("user_disabled", "normal"), ("user_changed", "normal")]
    alice = one.users.by_name["alice"]
    assert (alice.status, alice.guest_user, alice.revision) == ("disabled", "al", 2)
    assert codes(accept(one, m.ChangeUser("alice", "active"))) == [("user_enabled", "normal")]


def test_user_changed_to_what_it_is_stays_as_it_is() -> None:
    one = engine()
    before = book(one)
    assert codes(accept(one, m.ChangeUser("alice", "active", "alice"))) == []
    assert book(one) == before


def test_password_set_replaces_the_verifier_and_ends_what_was_checked_against_the_old_one() -> None:
    one = engine()
    done = accept(one, m.SetVerifier("alice", "[of another]"))
    assert one.users.verifiers["alice"].verifier == "[of another]"
    assert one.users.by_name["alice"].revision == 2
    assert codes(done) == [("user_password_changed", "normal")]
    (answer,) = sent_to(give(one, m.Submit(log_on(revision=1))), "client/1")
    assert isinstance(answer, m.Refusal)
    assert answer.code == "denied"


def test_verifier_renewed_is_no_change_of_the_password() -> None:
    one = engine()
    done = accept(one, m.SetVerifier("alice", "[hashed anew]", revision=1))
    assert one.users.verifiers["alice"].verifier == "[hashed anew]"
    assert (one.users.by_name["alice"].revision, codes(done)) == (1, [])


def test_verifier_renewed_after_another_password_was_set_is_not_kept() -> None:
    one = engine()
    accept(one, m.SetVerifier("alice", "[of another]"))
    (answer,) = sent_to(
        give(one, m.Submit(m.SetVerifier("alice", "[of the old one]", revision=1))), "client/1"
    )
    assert isinstance(answer, m.Refusal)
    assert one.users.verifiers["alice"].verifier == "[of another]"


def test_user_removed_leaves_no_verifier_and_its_name_is_free() -> None:
    one = engine()
    done = accept(one, m.RemoveUser("alice"))
    assert [type(record) for record in done.erased] == [UserRecord, UserVerifierRecord]
    assert codes(done) == [("user_removed", "normal")]
    accept(one, m.CreateUser("alice"))
    assert "alice" not in one.users.verifiers


# ---------------------------------------------------------------- logons


def test_logon_of_an_authenticated_user_is_a_task_of_the_machine() -> None:
    one = engine()
    done = accept(one, log_on(user="carl", session="ttyS0", timeout_s=9.0))
    item = one.inventory.vm("db")
    (operation,) = [record for record in done.saved if isinstance(record, OperationRecord)]
    task = m.VmTask("db", "log_on", {"user": "c.carlson", "session": "ttyS0"}, 9.0)
    assert sent_to(done, item.address) == [m.TaskVm(operation.id, task)]
    assert (operation.kind, operation.target_id) == ("log_on", item.id)
    (event,) = done.events
    assert (event.code, event.vm_name, event.operation_id) == ("vm_logon_asked", "db", operation.id)
    assert event.details == {"user": "carl", "guest_user": "c.carlson", "session": "ttyS0"}
    carl = one.users.by_name["carl"]
    assert (carl.logon_count, carl.last_logon_ns, carl.revision) == (1, done.now_ns, 1)


def test_logon_without_a_session_leaves_the_choice_to_the_guest() -> None:
    one = engine()
    done = accept(one, log_on())
    (task,) = sent_to(done, one.inventory.vm("db").address)
    assert isinstance(task, m.TaskVm)
    assert task.command.arguments == {"user": "alice"}


def test_user_denied_is_an_event_and_an_alert_when_it_goes_on() -> None:
    one = engine()
    done = give(one, m.UserDenied("alice", "db", "wrong password"))
    done_again = give(one, m.UserDenied("alice", "db", "wrong password", 5, True))
    unknown = give(one, m.UserDenied("", "", "no such user", 7))
    assert codes(done) == [("user_denied", "warning")]
    assert codes(done_again) == [("user_denied", "alert")]
    assert done_again.events[0].details == {"user": "alice", "failures": 5}
    assert "7 failed attempts" in unknown.events[0].message


# ---------------------------------------------------------------- refused

REFUSED: dict[str, tuple[m.Command | m.TrustedCommand, str]] = {
    "name taken": (m.CreateUser("alice"), "duplicate_name"),
    "no name": (m.CreateUser(""), "bad_input"),
    "name of two words": (m.CreateUser("al ice"), "bad_input"),
    "name that is a path": (m.CreateUser("../alice"), "bad_input"),
    "name that is no login": (m.CreateUser("x" * 33), "bad_input"),
    "login with a blank": (m.CreateUser("dora", guest_user="d ora"), "bad_input"),
    "login that is an option": (m.CreateUser("dora", guest_user="-f root"), "bad_input"),
    "login with a line break": (m.CreateUser("dora", guest_user="dora\n"), "bad_input"),
    "PAM account with a password": (m.CreateUser("dora", "pam", verifier=VERIFIER), "bad_input"),
    "change of nobody": (m.ChangeUser("ghost", "disabled"), "not_found"),
    "login changed to none that can be": (m.ChangeUser("alice", None, "a:b"), "bad_input"),
    "removal of nobody": (m.RemoveUser("ghost"), "not_found"),
    "password of nobody": (m.SetVerifier("ghost", VERIFIER), "not_found"),
    "password of a PAM account": (m.SetVerifier("paul", VERIFIER), "conflict"),
    "logon of nobody": (log_on(user="ghost"), "denied"),
    "logon of one who changed": (log_on(revision=2), "denied"),
    "logon to no machine": (log_on(vm="ghost"), "not_found"),
    "logon to a session that is none": (log_on(session="tty S0"), "bad_input"),
    "logon in no time": (log_on(timeout_s=0.0), "bad_input"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_user_command_refused_changes_nothing(case: str) -> None:
    command, code = REFUSED[case]
    one = engine()
    before = (book(one), encoded(one.record), dict(one.open))
    done = give(one, m.Submit(command))
    (answer,) = sent_to(done, "client/1")
    assert isinstance(answer, m.Refusal)
    assert (answer.code, bool(answer.reason)) == (code, True)
    assert (book(one), encoded(one.record), dict(one.open)) == before
    assert (done.saved, done.erased, done.events, len(done.sent)) == ([], [], [], 1)


def test_logon_of_a_disabled_user_is_denied() -> None:
    one = engine()
    accept(one, m.ChangeUser("alice", "disabled"))
    (answer,) = sent_to(give(one, m.Submit(log_on(revision=2))), "client/1")
    assert isinstance(answer, m.Refusal)
    assert answer.code == "denied"


# ---------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    "message", [m.CreateUser("alice", verifier="xyzzy"), m.SetVerifier("alice", "xyzzy")]
)
def test_message_with_a_verifier_does_not_show_it(message: m.CreateUser | m.SetVerifier) -> None:
    for shown in (repr(message), str(message), f"{m.Submit(message)!r}", str(message.__rich_repr__())):
        assert "xyzzy" not in shown
        assert "alice" in shown


@pytest.mark.parametrize("password", ["", "x" * 513, "é" * 257, "a\nb", "a\0b", "a\x7f", "\ud800"])
def test_password_that_cannot_be_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(BadInput) as refusal:
        check_password(password)
    assert not password or password not in refusal.value.message


@pytest.mark.parametrize(
    "password", ["x", " ", "correct horse", "é" * 256, "パスワード", "a\u00a0b", "'; drop--"]
)
def test_password_of_any_text_that_can_be_typed_is_accepted(password: str) -> None:
    check_password(password)


@pytest.mark.parametrize("login", ["alice", "_svc", "a.b-c", "HOST01$", "9lives", "alice@example.com"])
def test_guest_login_that_can_be_is_accepted(login: str) -> None:
    check_guest_user("alice", login)


@pytest.mark.parametrize("session", ["", "ttyS0", "tty1", "seat0", "c2", ":0", "pts/3"])
def test_session_name_is_one_of_a_guest_or_is_refused(session: str) -> None:
    if session.startswith(":"):
        with pytest.raises(BadInput):
            check_session(session)
    else:
        check_session(session)


def test_no_message_and_no_record_has_a_place_for_a_password() -> None:
    """What carries one is an ask of the gateway, and no type that an actor could be sent or keep."""
    kinds: list[type[msgspec.Struct]] = [UserRecord, UserVerifierRecord, *m.AnyMessage.__args__]
    named = [f"{kind.__name__}.{name}" for kind in kinds for name in kind.__struct_fields__ if "pass" in name]
    assert named == ["UserRecord.password_set_ns"]
