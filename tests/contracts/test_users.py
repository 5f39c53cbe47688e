"""Users on a real data center of the local runtime: passwords go in and come out nowhere, whatever happens.

Every byte that a data center leaves behind is searched for what was typed: journals, history, snapshots, logs, keys,
what its process prints, and what its socket answers to requests that are broken.
"""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from actors.pam_accounts import PamAccounts
from olvm import DataCenter
from olvm.journal.replay import verify
from olvm.model import client_protocol as p
from olvm.model import messages as m
from olvm.model.errors import BadInput, BadQuery, Conflict, Denied, DuplicateName, NotFound, OlvmError
from olvm.model.socket_path import SOCKET_NAME
from tests.contracts.fault_driver import lab, poll

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("user_driver.py")
PASSWORD = "Xk7-correct-horse-Qz"
OTHER = "Vb2-another-staple-Jw"
WRONG = "Nn5-battery-wrong-Ty"
OPERATIONS_BEFORE_KILL = 8
PAM_SERVICES = Path("/etc/pam.d")


def places_of(secret: str, directory: Path) -> list[str]:
    """Files below `directory` in which the secret stands, as UTF-8, UTF-16, base64 or hexadecimal."""
    import base64

    raw = secret.encode()
    forms = [raw, secret.encode("utf-16-le"), raw.hex().encode()]
    # base64 of a text depends on where in a group of three bytes it begins; the middle is the same.
    forms += [base64.b64encode(b"\0" * shift + raw)[4:-4] for shift in range(3)]
    found = []
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            found += [str(path) for form in forms if form in data]
    return found


@pytest.fixture
def dc(tmp_path: Path) -> Iterator[DataCenter]:
    with lab(tmp_path / "dc") as opened:
        prod = opened.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=4, memory="16GiB")
        prod.vms.create("db", vcpus=1, memory="1GiB").start().wait(60)
        yield opened


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data center in a process of its own, with machine db and user alice: for what goes through its socket."""
    directory = tmp_path_factory.mktemp("served")
    up = piped(["up", "--runtime", "local"], directory, b"")
    assert up.returncode == 0, up.stderr
    try:
        with DataCenter.connect(directory) as dc:
            prod = dc.clusters.create("prod")
            prod.hosts.add("kvm00", cpus=4, memory="16GiB")
            prod.vms.create("db", vcpus=1, memory="1GiB").start().wait(60)
            dc.users.create("alice", password=PASSWORD)
        yield directory
    finally:
        down = piped(["down"], directory, b"")
    assert down.returncode == 0, down.stderr
    assert places_of(PASSWORD, directory) + places_of(OTHER, directory) + places_of(WRONG, directory) == []


def codes(dc: DataCenter) -> list[str]:
    return [str(event["code"]) for event in dc.events()]


# ---------------------------------------------------------------- what users can do


def test_user_from_its_creation_to_its_removal(dc: DataCenter) -> None:
    alice = dc.users.create("alice", password=PASSWORD, guest_user="al")
    assert dc.vms["db"].log_on("alice", PASSWORD, session="ttyS0").wait(60).status == "succeeded"
    alice.set_password(OTHER).wait(60)
    with pytest.raises(Denied):
        dc.vms["db"].log_on("alice", PASSWORD)
    dc.vms["db"].log_on("alice", OTHER).wait(60)
    alice.disable().wait(60)
    with pytest.raises(Denied):
        dc.vms["db"].log_on("alice", OTHER)
    alice.enable().wait(60)
    dc.vms["db"].lock_screen().wait(60)
    dc.vms["db"].log_off("ttyS0").wait(60)
    record = alice.record
    assert (record.kind, record.status, record.guest_user, record.logon_count) == ("local", "active", "al", 2)
    assert [user.name for user in dc.users.list("status=active and kind=local")] == ["alice"]
    alice.remove().wait(60)
    assert dc.users.list() == []
    with pytest.raises(Denied):
        dc.vms["db"].log_on("alice", OTHER)
    expected = {"user_created", "vm_logon_asked", "vm_log_on", "user_password_changed", "user_denied"}
    assert expected | {"user_disabled", "user_enabled", "user_removed"} <= set(codes(dc))


def test_user_commands_refused_say_why(dc: DataCenter) -> None:
    dc.users.create("alice")
    dc.users.create("paul", pam=True)
    with pytest.raises(DuplicateName):
        dc.users.create("alice", password=PASSWORD)
    with pytest.raises(BadInput):
        dc.users.create("erin", password=PASSWORD, pam=True)
    with pytest.raises(BadInput):
        dc.users.create("erin", password="")
    with pytest.raises(NotFound):
        dc.users.get("erin")
    with pytest.raises(NotFound):
        dc.users["erin"].set_password(PASSWORD)
    with pytest.raises(Conflict):
        dc.users["paul"].set_password(PASSWORD)
    dc.users["alice"].set_password(PASSWORD).wait(60)
    with pytest.raises(NotFound):
        dc.vms["ghost"].log_on("alice", PASSWORD)


def test_password_set_again_by_the_same_request_is_set_once(dc: DataCenter) -> None:
    dc.users.create("alice")
    first = dc.users["alice"].set_password(PASSWORD, client_request_id="once")
    again = dc.users["alice"].set_password(PASSWORD, client_request_id="once")
    assert first.wait(60).id == again.wait(60).id
    assert codes(dc).count("user_password_changed") == 1


def test_logon_past_the_gateway_is_denied(dc: DataCenter) -> None:
    """Who may be logged on is for a password to say, not for whoever knows the name of a task."""
    with pytest.raises(Denied):
        dc.vms["db"].task("log_on", {"user": "root"})
    trusted = m.LogUserOn("db", "alice", 1)
    for command in (m.CreateUser("erin", verifier="[]"), m.SetVerifier("alice", "[]"), trusted):
        with pytest.raises(Denied):
            dc.submit(command, "past the gateway")  # type: ignore[arg-type]


def test_verifier_is_read_by_no_question(dc: DataCenter) -> None:
    dc.users.create("alice", password=PASSWORD)
    for sql in (
        "select * from user_verifiers",
        "select * from users u join user_verifiers v using (name)",
        "select * from history.events, user_verifiers",
        "with user_verifiers as (from main.user_verifiers) from user_verifiers",
    ):
        with pytest.raises(Denied):
            dc.sql(sql)
    with pytest.raises(BadQuery):
        dc.sql("from query_table('user_' || 'verifiers')")
    assert dc.sql("select name, kind, status from users").rows() == [("alice", "local", "active")]
    assert "verifier" not in dc.sql("select * from users").columns


# ---------------------------------------------------------------- passwords are nowhere


def test_password_stands_nowhere_after_all_that_is_done_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    directory = tmp_path / "dc"
    with lab(directory) as dc:
        prod = dc.clusters.create("prod")
        prod.hosts.add("kvm00", cpus=4, memory="16GiB")
        prod.vms.create("db", vcpus=1, memory="1GiB").start().wait(60)
        dc.users.create("alice", password=PASSWORD)
        dc.users["alice"].set_password(OTHER).wait(60)
        dc.vms["db"].log_on("alice", OTHER).wait(60)
        for user, password in (("alice", WRONG), (WRONG, PASSWORD)):
            with pytest.raises(Denied) as refusal:
                dc.vms["db"].log_on(user, password)
            assert WRONG not in repr(refusal.value)
        poll(lambda: "user_denied" in [row[0] for row in dc.sql("select code from history.events").rows()])
        told = [str(event) for event in dc.events()] + [str(dc.operations.list()), str(dc.users.list())]
        assert (
            places_of(PASSWORD, directory) + places_of(OTHER, directory) + places_of(WRONG, directory) == []
        )
    for secret in (PASSWORD, OTHER, WRONG):
        assert places_of(secret, directory) == []
        assert secret not in caplog.text
        assert secret not in "".join(told)
    assert verify(directory / "engine.duckdb") == []


def test_search_for_passwords_finds_one_that_was_planted(tmp_path: Path) -> None:
    """The tests above would be green for a search that finds nothing."""
    import base64

    raw = PASSWORD.encode()
    planted = [raw, raw.hex().encode(), PASSWORD.encode("utf-16-le"), base64.b64encode(b"ab" + raw + b"c")]
    for number, data in enumerate(planted):
        (tmp_path / str(number)).write_bytes(b"\0before" + data + b"after")
    assert len(places_of(PASSWORD, tmp_path)) == len(planted)


def test_password_stands_nowhere_after_the_engine_was_killed(tmp_path: Path) -> None:
    directory = tmp_path / "dc"
    for _ in range(2):  # the second one recovers what the first left
        with (
            (tmp_path / "stderr").open("wb") as complaints,
            subprocess.Popen(
                [sys.executable, str(DRIVER), str(directory), PASSWORD],
                stdout=subprocess.PIPE,
                stderr=complaints,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            ) as driver,
        ):
            assert driver.stdout is not None
            told = [driver.stdout.readline() for _ in range(OPERATIONS_BEFORE_KILL)]
            driver.send_signal(signal.SIGKILL)
        assert all(told), (tmp_path / "stderr").read_text()
        assert places_of(PASSWORD, tmp_path) == []
    with lab(directory) as dc:
        # Accepted is authenticated; the machine itself went with the process of its simulated host.
        for user in ("alice", "bob"):
            operation = dc.vms["db"].log_on(user, PASSWORD)
            with contextlib.suppress(Conflict):
                operation.wait(60)
        poll(lambda: all(one.finished_ns is not None for one in dc.operations.list()))
    assert places_of(PASSWORD, tmp_path) == []
    assert verify(directory / "engine.duckdb") == []


def frame(body: object) -> bytes:
    data = msgspec.msgpack.encode(body)
    return struct.pack(">I", len(data)) + data


BROKEN_REQUESTS: dict[str, bytes] = {
    "of another type": frame([1, ["LogOn", "db", PASSWORD, 7, "r"]]),
    "password that is a list": frame([1, ["LogOn", "db", "alice", [PASSWORD], "r"]]),
    "no request id": frame([1, ["LogOn", "db", "alice", PASSWORD]]),
    "unknown ask": frame([1, [PASSWORD, "db"]]),
    "cut off": frame([1, ["LogOn", "db", "alice", PASSWORD, ["r"]]])[:-1] + b"\xc1",
    "no UTF-8": frame([1, ["LogOn", "db", "alice", f"{PASSWORD}zz", "r"]]).replace(b"zz", b"\xff\xff"),
    "password with a NUL": frame([1, ["LogOn", "db", "alice", f"{PASSWORD}\0", "r"]]),
    "session that holds it": frame([1, ["SetPassword", "alice", f"{PASSWORD}\n", "r"]]),
    "user created under two names": frame([1, ["SetPassword", "a", PASSWORD, "r", ["CreateUser", "b"]]]),
}


@pytest.mark.parametrize("case", BROKEN_REQUESTS)
def test_request_that_is_broken_is_answered_without_its_password(case: str, served: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(str(served / SOCKET_NAME))
        client.sendall(BROKEN_REQUESTS[case])
        answer = client.recv(65536)
    if case == "no UTF-8":  # the reader of the socket ends without an answer
        return
    decoded = msgspec.msgpack.decode(answer[4:], type=p.Answer)
    # An unknown tag is repeated by the decoder; no client of ours puts a password there, and nothing keeps it.
    assert case == "unknown ask" or PASSWORD.encode() not in answer
    assert isinstance(decoded.body, m.Refusal)
    assert places_of(PASSWORD, served) == []


def test_flood_of_logons_does_not_delay_other_clients(dc: DataCenter) -> None:
    dc.users.create("alice", password=PASSWORD)
    with dc.pipelined():
        flood = [dc.vms["db"].log_on(f"ghost-{number}", WRONG) for number in range(200)]
    begun_s = time.monotonic()
    dc.vms["db"].update(description="while they wait").wait(60)
    taken_s = time.monotonic() - begun_s
    outcomes = []
    for one in flood:
        with pytest.raises(OlvmError) as refusal:
            one.accepted()
        outcomes.append(type(refusal.value))
    assert set(outcomes) <= {Denied, Conflict}
    assert taken_s < 5.0


# ---------------------------------------------------------------- the command line


@contextlib.contextmanager
def terminal(command: list[str], directory: Path) -> Iterator[tuple[int, int]]:
    """The command on a terminal of its own: its process and what stands for the keyboard and the screen."""
    pid, screen = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ |= {"OLVM_DIRECTORY": str(directory), "NO_COLOR": "1"}
        os.execv(sys.executable, [sys.executable, "-m", "olvm.cli", *command])
    try:
        yield pid, screen
    finally:
        os.close(screen)


def typed(command: list[str], directory: Path, *lines: str) -> tuple[int, str]:
    """Answer each prompt with a line; the exit code, and all that stood on the screen."""
    shown, waiting = "", list(lines)
    with terminal(command, directory) as (pid, screen):
        while select.select([screen], [], [], 60)[0]:
            try:
                data = os.read(screen, 4096)
            except OSError:  # how a terminal says that nobody is there any more
                break
            shown += data.decode()
            if waiting and shown.endswith(": "):
                os.write(screen, waiting.pop(0).encode() + b"\n")
        _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), shown


def piped(command: list[str], directory: Path, text: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "olvm.cli", *command],
        cwd=ROOT,
        env={**os.environ, "OLVM_DIRECTORY": str(directory), "NO_COLOR": "1"},
        input=text,
        capture_output=True,
        timeout=120,
        check=False,
        start_new_session=True,  # no terminal to ask on
    )


def test_password_typed_on_a_terminal_is_not_shown(served: Path) -> None:
    code, shown = typed(["user", "create", "tina"], served, PASSWORD, PASSWORD)
    assert (code, "create_user" in shown) == (0, True), shown
    assert PASSWORD not in shown
    code, shown = typed(["vm", "logon", "db", "--user", "tina"], served, PASSWORD)
    assert (code, PASSWORD in shown) == (0, False), shown
    code, shown = typed(["user", "password", "tina"], served, OTHER, WRONG)
    assert (code, "differ" in shown) == (2, True), shown
    assert OTHER not in shown


def test_password_by_a_pipe_and_the_exit_codes_of_what_may_follow(served: Path) -> None:
    made = piped(["user", "create", "pip", "--password-stdin"], served, PASSWORD.encode() + b"\r\n")
    assert made.returncode == 0, made.stderr
    logon = ["vm", "logon", "db", "--user", "pip", "--password-stdin", "-v"]
    assert piped(logon, served, PASSWORD.encode()).returncode == 0
    cases = {
        WRONG.encode(): 5,
        b"": 2,
        b"\n" + PASSWORD.encode(): 2,
        b"\xff\xfe" + PASSWORD.encode(): 2,
        PASSWORD.encode() * 100: 2,
    }
    for text, code in cases.items():
        result = piped(logon, served, text)
        assert (result.returncode, result.stdout) == (code, b""), result.stderr
        assert PASSWORD.encode() not in result.stderr
        assert WRONG.encode() not in result.stderr
    nobody = piped(["user", "password", "alice"], served, PASSWORD.encode())
    assert (nobody.returncode, b"--password-stdin" in nobody.stderr) == (2, True)


def test_user_list_and_show_have_no_place_for_a_verifier(served: Path) -> None:
    for command in (["user", "list", "-o", "json"], ["user", "show", "alice", "-o", "json"]):
        result = piped(command, served, b"")
        assert result.returncode == 0, result.stderr
        assert b"alice" in result.stdout
        assert b"verifier" not in result.stdout


# ---------------------------------------------------------------- PAM


@pytest.fixture
def pam_service(tmp_path: Path) -> Iterator[str]:
    """A service of its own that accepts one password: libpam, python-pam and pam_exec as they are."""
    if os.geteuid() != 0 or not PAM_SERVICES.is_dir():
        pytest.skip("a PAM service needs root and /etc/pam.d")
    check = tmp_path / "check"
    # pam_exec ends what it sends with a NUL, which a shell leaves out.
    check.write_text(f'#!/bin/sh\nread -r told || true\n[ "$told" = "{PASSWORD}" ]\n')
    check.chmod(0o700)
    name = f"olvm-test-{os.getpid()}"
    (PAM_SERVICES / name).write_text(
        f"auth [success=1 default=ignore] pam_exec.so quiet expose_authtok {check}\n"
        "auth requisite pam_deny.so\n"
        "auth required pam_permit.so\n"
        "account required pam_permit.so\n"
    )
    try:
        yield name
    finally:
        (PAM_SERVICES / name).unlink()


def test_pam_accepts_and_refuses_by_libpam_itself(pam_service: str) -> None:
    pam = PamAccounts(pam_service)
    assert pam.refusal("root", PASSWORD) == ""
    assert pam.refusal("root", WRONG) == "wrong password"
    assert PamAccounts("login").refusal("no-such-user-here", WRONG) != ""
