"""The desk for logons over a real socket: a greeter waits, PAM's program asks, other users get nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from guest_agent.credentials import Desk, Tokens
from guest_agent.pam import token_file
from tests.unit.guest_agent.agent_bench import AgentBench

ROOT = Path(__file__).parents[3]
NOBODY = 65534
as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="another user's process is started, which root alone can do"
)


class Bench:
    def __init__(self, home: Path, uid: int) -> None:
        self.now_s = 0.0
        self.owner = ""
        self.home = home
        self.tokens = Tokens(lambda _session: self.owner, lambda: self.now_s)
        self.desk = Desk(self.tokens, str(home / "desk"), uid)

    def connect(self, said: object) -> socket.socket:
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(5)
        line.connect(str(self.home / "desk"))
        line.sendall(said if isinstance(said, bytes) else json.dumps(said).encode())
        self.desk.accept()
        for caller in list(self.desk.callers):
            self.desk.serve(caller)
        return line

    def answer(self, said: object) -> Any:
        with self.connect(said) as line:
            data = line.recv(4096)
        return json.loads(data) if data else None

    def check(self, token: str, user: str = "alice", session: str = "hvc0") -> Any:
        return self.answer({"verb": "check", "user": user, "session": session, "token": token})

    def token_for(self, user: str = "alice", session: str = "hvc0") -> str:
        """As a greeter hears it."""
        with self.connect({"verb": "wait", "session": session}) as greeter:
            assert self.desk.log_on(user, session) == ""
            return str(json.loads(greeter.recv(4096))["token"])

    def pam(self, user: str, tty: str) -> int:
        """The program that PAM runs, in a process of its own; returns its exit code."""
        code = "import sys; from guest_agent import pam; pam.TOKENS = sys.argv[2]; sys.exit(pam.main(sys.argv[1]))"
        environment = {"PAM_USER": user, "PAM_TTY": tty, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, str(self.home / "desk"), str(self.home)]
        with subprocess.Popen(command, env=environment) as process:
            while process.poll() is None:
                self.serve_one()
        return process.returncode

    def serve_one(self) -> None:
        self.desk.socket.settimeout(0.05)
        self.desk.accept()
        for caller in list(self.desk.callers):
            caller.settimeout(1)
            self.desk.serve(caller)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        one = Bench(Path(directory), os.geteuid())
        yield one
        one.desk.close()


def leave_token(bench: Bench, token: str, session: str = "hvc0") -> Path:
    """As the greeter does."""
    path = bench.home / os.path.basename(token_file(session))
    path.write_text(token)
    path.chmod(0o600)
    return path


def test_desk_login_for_a_waiting_greeter_gives_it_a_token_that_is_good_once(bench: Bench) -> None:
    token = bench.token_for()
    assert bench.check(token) == {"ok": True, "reason": ""}
    assert bench.check(token) == {"ok": False, "reason": "replayed"}


def test_desk_login_without_a_session_chooses_a_greeter_that_waits(bench: Bench) -> None:
    with bench.connect({"verb": "wait", "session": "tty1"}) as greeter:
        assert bench.desk.log_on("alice", "") == ""
        assert json.loads(greeter.recv(4096))["user"] == "alice"


def test_desk_login_where_nobody_waits_says_so(bench: Bench) -> None:
    why = "its greeter has yet to begin, or none is installed there"
    assert bench.desk.log_on("alice", "hvc0") == f"nobody waits for a logon on hvc0: {why}"
    assert bench.desk.log_on("alice", "") == f"nobody waits for a logon on any console: {why}"


@pytest.mark.parametrize(
    ("user", "reason"),
    [
        ("root", ""),
        ("nobody-at-all", "this guest has no user nobody-at-all; create it there, or log on as another one"),
    ],
)
def test_desk_login_is_for_a_user_whom_the_guest_has(
    bench: Bench, tmp_path: Path, user: str, reason: str
) -> None:
    guest = AgentBench(tmp_path, bench.desk)
    with bench.connect({"verb": "wait", "session": "hvc0"}) as greeter:
        guest.order("login", username=user, session="hvc0", reply_id=1)
        (answer,) = guest.named("completion")
        assert (answer["ok"], answer["reason"]) == (not reason, reason)
        assert list(bench.desk.waiting) == (["hvc0"] if reason else [])  # refused: it waits on
        assert reason or json.loads(greeter.recv(4096))["user"] == user


def test_desk_two_logins_at_once_are_each_for_their_own_session(bench: Bench, tmp_path: Path) -> None:
    guest = AgentBench(tmp_path, bench.desk)
    with (
        bench.connect({"verb": "wait", "session": "hvc0"}) as one,
        bench.connect({"verb": "wait", "session": "hvc1"}) as other,
    ):
        for session in ("hvc0", "hvc1"):
            guest.agent.on_message("login", {"username": "root", "session": session, "reply_id": session})
        guest.wait_for_errands()
        assert {said["reply_id"]: said["ok"] for said in guest.named("completion")} == {
            "hvc0": True,
            "hvc1": True,
        }
        assert json.loads(one.recv(4096))["token"] != json.loads(other.recv(4096))["token"]


def test_desk_greeter_that_went_away_is_nobody(bench: Bench) -> None:
    bench.connect({"verb": "wait", "session": "hvc0"}).close()
    for caller in list(bench.desk.callers):
        bench.desk.serve(caller)
    assert bench.desk.log_on("alice", "hvc0").startswith("nobody waits for a logon on hvc0: ")


def test_desk_second_greeter_of_a_session_takes_the_place_of_the_first(bench: Bench) -> None:
    with bench.connect({"verb": "wait", "session": "hvc0"}) as first:
        with bench.connect({"verb": "wait", "session": "hvc0"}) as second:
            assert bench.desk.log_on("alice", "hvc0") == ""
            assert second.recv(4096)
        assert first.recv(4096) == b""


def test_desk_every_misuse_is_refused_with_its_own_reason_and_counted(bench: Bench) -> None:
    token = bench.token_for()
    assert bench.check("0" * 48)["reason"] == "no token"
    assert bench.check(token, session="tty1")["reason"] == "other session"
    bench.owner = "bob"
    assert bench.check(token)["reason"] == "locked by another"
    bench.owner = ""
    assert bench.check(token, user="mallory")["reason"] == "other user"
    token = bench.token_for()
    bench.now_s += 5.1
    assert bench.check(token)["reason"] == "late"
    token = bench.token_for()
    assert bench.check(token)["ok"]
    assert bench.check(token)["reason"] == "replayed"
    counted = {name: count for name, count in bench.tokens.refused.items() if count}
    assert counted == dict.fromkeys(
        ["no token", "other session", "locked by another", "other user", "late", "replayed"], 1
    )
    assert bench.answer({"verb": "refused", "session": ""})["late"] == 1


@pytest.mark.parametrize("said", [b"{", b"[]", b"3", b'"wait"', b'{"verb":"wait"}', b"\xff\xff", b"[" * 4000])
def test_desk_request_that_is_none_is_counted_and_hung_up(bench: Bench, said: bytes) -> None:
    assert bench.answer(said) is None
    assert bench.tokens.refused["malformed"] == 1
    assert bench.desk.callers == []


def test_desk_socket_is_for_its_owner_alone(bench: Bench) -> None:
    assert os.stat(bench.home / "desk").st_mode & 0o777 == 0o600


@as_root
def test_desk_another_users_process_with_a_good_token_is_refused_as_wrong_peer(bench: Bench) -> None:
    token = bench.token_for()
    os.chmod(bench.home / "desk", 0o666)  # the file's mode would stop it before: the kernel's word must, too
    code = (
        "import contextlib, socket, sys\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
        "with contextlib.suppress(BrokenPipeError):\n s.sendall(sys.argv[2].encode())\n"  # it may be refused already
        "print(s.recv(4096).decode())"
    )
    said = json.dumps({"verb": "check", "user": "alice", "session": "hvc0", "token": token})
    command = ["/usr/bin/python3", "-I", "-S", "-c", code, str(bench.home / "desk"), said]
    with subprocess.Popen(command, user=NOBODY, group=NOBODY, stdout=subprocess.PIPE, text=True) as process:
        bench.desk.socket.settimeout(10)
        bench.desk.accept()
        answer, _ = process.communicate()
    assert json.loads(answer) == {"ok": False, "reason": "wrong peer"}
    assert bench.tokens.refused["wrong peer"] == 1
    assert bench.check(token)["ok"]  # it was not spent by that


@as_root
def test_pam_program_with_the_greeters_token_lets_the_user_in_once(bench: Bench) -> None:
    token = bench.token_for()
    path = leave_token(bench, token)
    assert bench.pam("alice", "/dev/hvc0") == 0
    assert not path.exists()
    leave_token(bench, token)
    assert bench.pam("alice", "hvc0") == 1
    assert bench.tokens.refused["replayed"] == 1


@as_root
def test_pam_program_without_a_token_leaves_it_to_the_password(bench: Bench) -> None:
    assert bench.pam("alice", "hvc0") == 1
    assert set(bench.tokens.refused.values()) == {0}


@as_root
def test_pam_program_for_another_user_is_refused(bench: Bench) -> None:
    leave_token(bench, bench.token_for())
    assert bench.pam("mallory", "hvc0") == 1
    assert bench.tokens.refused["other user"] == 1


@as_root
def test_pam_program_token_file_that_others_could_write_is_not_believed(bench: Bench) -> None:
    path = leave_token(bench, bench.token_for())
    path.chmod(0o666)
    assert bench.pam("alice", "hvc0") == 1
