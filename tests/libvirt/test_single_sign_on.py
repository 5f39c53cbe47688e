"""A user is logged on at a text console without a password, by real `login` and PAM; every misuse meets a prompt."""

from __future__ import annotations

import base64
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent.credentials import LIFE_S
from guest_agent.sessions import UTMP_BYTES
from olvm.lab.debian import DebianImage
from tests.libvirt.console_bench import ConsoleBench
from tests.libvirt.machine import eventually
from tests.libvirt.qemu_bench import QemuGuest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[ConsoleBench]:
    one = ConsoleBench(tmp_path)
    yield one
    one.close()


def test_logon_at_a_greeter_opens_a_session_as_that_user(bench: ConsoleBench) -> None:
    console = bench.terminal()
    bench.greet(console)
    bench.log_on("alice", console.session)
    console.see(b"$ ")
    console.type(b"id -un; tty; echo $USER-$((6*7))\n")
    said = console.see(b"alice-42")
    assert b"\nalice\r\n" in said
    assert f"/dev/{console.session}".encode() in said
    assert b"Password" not in said
    assert not list((bench.root / "run/olvm-tokens").iterdir())
    assert bench.refused() == {}


def test_logon_by_a_typed_name_asks_for_the_password_as_ever(bench: ConsoleBench) -> None:
    console = bench.terminal()
    bench.greet(console)
    console.type(b"alice\n")
    console.see(b"Password: ")
    assert bench.refused() == {}


def test_token_replayed_meets_the_password(bench: ConsoleBench) -> None:
    console = bench.terminal()
    token = bench.token_for("alice", console.session)
    bench.leave(token, console.session)
    bench.login(console, "alice")
    console.see(b"$ ")
    again = bench.terminal()
    bench.leave(token, again.session)
    bench.login(again, "alice")
    again.see(b"Password: ")
    assert bench.refused() == {"replayed": 1}


def test_token_of_another_user_meets_the_password(bench: ConsoleBench) -> None:
    console = bench.terminal()
    bench.leave(bench.token_for("alice", console.session), console.session)
    bench.login(console, "bob")
    console.see(b"Password: ")
    assert bench.refused() == {"other user": 1}


def test_token_of_another_session_meets_the_password(bench: ConsoleBench) -> None:
    console, other = bench.terminal(), bench.terminal()
    bench.leave(bench.token_for("alice", console.session), other.session)
    bench.login(other, "alice")
    other.see(b"Password: ")
    assert bench.refused() == {"other session": 1}


def test_token_that_is_late_meets_the_password(bench: ConsoleBench) -> None:
    console = bench.terminal()
    bench.leave(bench.token_for("alice", console.session), console.session)
    time.sleep(LIFE_S + 0.2)
    bench.login(console, "alice")
    console.see(b"Password: ")
    assert bench.refused() == {"late": 1}


def test_token_for_a_session_that_another_user_has_meets_the_password(bench: ConsoleBench) -> None:
    console = bench.terminal()
    bench.leave(bench.token_for("alice", console.session), console.session)
    entry = struct.pack("<hxxi32s4s32s256s", 7, 1, console.session.encode(), b"x", b"bob", b"")
    (bench.root / "run/utmp").write_bytes(entry.ljust(UTMP_BYTES, b"\0"))
    bench.login(console, "alice")
    console.see(b"Password: ")
    assert bench.refused() == {"locked by another": 1}


# ---------------------------------------------------------------- a real Debian guest: systemd, logind, its own getty


CONSOLE = "ttyS0"
PROMPT = "debian login: "
LOG = "journalctl --no-pager -q -u olvm-guest-agent; journalctl --no-pager -q | grep logon"
ATTEMPT = Path(__file__).with_name("logon_attempt.py")


@pytest.fixture(scope="module")
def debian_guest(debian: DebianImage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QemuGuest]:
    """One for all tests of this module: each leaves the console at the greeter's prompt."""
    one = QemuGuest(tmp_path_factory.mktemp("sso") / "guest", debian)
    try:
        one.listen()
        one.see(PROMPT)
        one.hear("heartbeat")
        one.say("refresh", apiVersion=3)
        one.sh(f"echo {base64.b64encode(ATTEMPT.read_bytes()).decode()} | base64 -d > /run/attempt.py")
        one.sh(
            'useradd --create-home --shell /bin/bash bob; usermod -p "$(getent shadow alice | cut -d: -f2)" bob'
        )
        yield one
    finally:
        one.close()


@pytest.fixture
def at_prompt(debian_guest: QemuGuest) -> QemuGuest:
    """Nobody is logged on at the console, and a greeter waits there."""
    if debian_guest.sh(f"who | grep {CONSOLE}"):
        debian_guest.order("log-off", session=CONSOLE)
        debian_guest.see(PROMPT)
    return debian_guest


def log_on(guest: QemuGuest, user: str) -> str:
    """By the host's word; what was on the console until the shell's prompt."""
    assert eventually(lambda: guest.order("login", username=user, session=CONSOLE) == "", 60)
    return guest.see("$ ")


def refused(guest: QemuGuest) -> dict[str, int]:
    return dict(json.loads(guest.sh("python3 /run/attempt.py refused")))


def attempt(guest: QemuGuest, user: str, *, login: str = "", wait_s: float = 0, way: str = "take") -> str:
    """What a login in the guest showed; `user` is whom the host logs on meanwhile, empty: nobody."""
    guest.sh("rm -f /run/attempt")
    pid = guest.begin(f"python3 /run/attempt.py login {login or user} {wait_s} {way}")
    if user:
        assert eventually(lambda: guest.sh("cat /run/attempt").startswith("pts/"), 60)
        session = guest.sh("cat /run/attempt")
        assert eventually(lambda: guest.order("login", username=user, session=session) == "", 30)
    said = guest.result(pid)
    assert said is not None
    return str(json.loads(said.splitlines()[-1]))


def test_debian_logon_by_the_host_opens_a_session_as_that_user(at_prompt: QemuGuest) -> None:
    guest = at_prompt
    assert "Password" not in log_on(guest, "alice")
    guest.type("id -un; tty; echo $USER-$((6*7))\n")
    assert "alice" in guest.see("alice-42")
    guest.say("refresh", apiVersion=3)  # else it would be told within ten seconds
    guest.hear("session-logon", user="alice", session=CONSOLE)
    assert "alice" in guest.hear("active-user", name="alice")["users"]
    assert guest.sh("who").split()[:2] == ["alice", CONSOLE]
    assert guest.sh("loginctl --no-legend list-sessions").split()[2] == "alice"
    assert guest.sh("ls /run/olvm-tokens") == ""
    assert "logon of 'alice' on 'ttyS0' granted" in guest.sh(LOG)
    assert guest.order("login", username="alice", session=CONSOLE) == ""  # an order may come twice
    guest.type("exit\n")
    guest.see(PROMPT)
    guest.say("refresh", apiVersion=3)
    guest.hear("session-logoff", user="alice")


def test_debian_logon_with_the_password_of_vdsm_never_writes_it_down(at_prompt: QemuGuest) -> None:
    order = {"username": "alice@example.org", "password": "Geheim!7"}
    assert eventually(lambda: at_prompt.order("login", **order) == "", 60)
    assert "Password" not in at_prompt.see("$ ")
    found = at_prompt.sh(
        "journalctl --no-pager -q | grep -c 'Gehei[m]'; grep -rl 'Gehei[m]' /run /var/log /tmp /etc; true"
    )
    assert found == "0"


def test_debian_logon_by_a_typed_name_asks_for_the_password_as_ever(at_prompt: QemuGuest) -> None:
    at_prompt.type("alice\n")
    at_prompt.see("Password: ")
    at_prompt.type("lab\n")
    at_prompt.see("$ ")


def test_debian_every_misuse_of_a_token_meets_the_password(debian_guest: QemuGuest) -> None:
    guest = debian_guest
    before = refused(guest)
    assert "$ " in attempt(guest, "alice", way="keep")
    assert "Password" in attempt(guest, "", login="alice", way="kept")
    assert "Password" in attempt(guest, "alice", login="bob")
    assert "Password" in attempt(guest, "alice", way="elsewhere")
    assert "Password" in attempt(guest, "alice", wait_s=LIFE_S + 0.5)
    counted = {reason: count - before[reason] for reason, count in refused(guest).items()}
    misuses = ("replayed", "other user", "other session", "late")
    assert {reason: count for reason, count in counted.items() if count} == dict.fromkeys(misuses, 1)
    said = guest.sh(LOG)
    assert all(f"refused: {reason}" in said for reason in misuses)
    assert guest.sh("cat /run/kept-token") not in said


def test_debian_question_of_a_user_is_refused_whatever_the_file_allows(debian_guest: QemuGuest) -> None:
    guest = debian_guest
    before = refused(guest)["wrong peer"]
    guest.sh("chmod 644 /run/attempt.py")
    assert "PermissionError" in guest.sh("setpriv --reuid alice --clear-groups python3 /run/attempt.py ask")
    guest.sh("chmod 666 /run/olvm-guest-agent.sock")
    said = guest.sh("setpriv --reuid alice --clear-groups python3 /run/attempt.py ask")
    guest.sh("chmod 600 /run/olvm-guest-agent.sock")
    assert json.loads(said) == {"ok": False, "reason": "wrong peer"}
    assert refused(guest)["wrong peer"] == before + 1


def test_debian_logon_where_another_user_is_or_has_locked_is_refused(at_prompt: QemuGuest) -> None:
    guest = at_prompt
    log_on(guest, "bob")
    before = refused(guest)["locked by another"]
    assert guest.order("login", username="alice", session=CONSOLE).startswith("locked by another")
    assert guest.order("lock-screen", session=CONSOLE) == ""
    guest.see("Password: ")
    assert guest.order("login", username="alice", session=CONSOLE).startswith("locked by another")
    assert guest.order("login", username="alice").startswith("locked by another")
    assert refused(guest)["locked by another"] == before + 3
    guest.type("id\n")  # still locked
    guest.see("Password: ")


def test_debian_lock_stops_the_console_until_the_password_or_the_host_ends_it(at_prompt: QemuGuest) -> None:
    guest = at_prompt
    log_on(guest, "alice")
    assert guest.order("lock-screen", session=CONSOLE) == ""
    guest.see("Locked by alice. Password: ")
    guest.hear("session-lock", user="alice", session=CONSOLE)
    guest.type("touch /tmp/escaped\n")
    guest.see("Password: ")
    guest.type("lab\n")
    assert eventually(lambda: guest.sh("ls /run/olvm-locks") == "", 30)
    guest.say("refresh", apiVersion=3)
    guest.hear("session-unlock", user="alice", session=CONSOLE)
    guest.type("echo free-$((40+2)); jobs; stty -a | grep -o ' echo '\n")
    guest.see("free-42")
    assert guest.sh("ls /tmp/escaped").startswith("ls: cannot access")
    assert guest.order("lock-screen") == ""  # the console is meant
    guest.see("Password: ")
    guest.sh("systemctl restart olvm-guest-agent")
    guest.see("Password: ")  # the agent that began again asks
    assert guest.sh("ls /run/olvm-locks") == CONSOLE
    assert eventually(lambda: guest.order("login", username="alice", session=CONSOLE) == "", 60)
    assert guest.sh("ls /run/olvm-locks") == ""
    guest.type("echo again-$((40+2))\n")
    guest.see("again-42")
    guest.order("lock-screen", session=CONSOLE)
    guest.see("Password: ")
    assert guest.order("log-off", session=CONSOLE) == ""
    guest.see(PROMPT)
    assert eventually(lambda: guest.sh("ls /run/olvm-locks") == "", 30)


def test_debian_lock_that_logind_knows_of_is_told(at_prompt: QemuGuest) -> None:
    """As a desktop's own locker says it."""
    guest = at_prompt
    log_on(guest, "alice")
    number = guest.sh("loginctl --no-legend list-sessions").split()[0]
    path = guest.sh("busctl --list tree org.freedesktop.login1 | grep /session/_").split()[-1]
    call = f"busctl call org.freedesktop.login1 {path} org.freedesktop.login1.Session SetLockedHint b"
    guest.sh(f"{call} true")
    assert "LockedHint=yes" in guest.sh(f"loginctl show-session {number} -p LockedHint")
    guest.hear("session-lock", user="alice", session=CONSOLE)
    guest.sh(f"{call} false")
    guest.hear("session-unlock", user="alice", session=CONSOLE)


def test_debian_closed_to_logins_is_closed_to_tokens(at_prompt: QemuGuest) -> None:
    guest = at_prompt
    guest.sh("echo closed > /run/nologin")
    assert eventually(lambda: guest.order("login", username="alice", session=CONSOLE) == "", 60)
    guest.see("closed")
    guest.sh("rm /run/nologin")
    guest.see(PROMPT)
    assert "closed to logins" in guest.sh(LOG)


def test_debian_freeze_holds_the_root_file_system_while_the_agent_goes_on(debian_guest: QemuGuest) -> None:
    guest = debian_guest
    assert guest.order("freeze") == ""
    writing = guest.begin("echo x > /root/written && sync")
    assert guest.result(writing, 1.0) is None
    guest.hear("heartbeat")
    assert guest.order("freeze") == ""  # an order may come twice
    assert guest.order("thaw") == ""
    assert guest.result(writing) == ""
    assert guest.order("thaw") == ""


def test_debian_agent_is_small_and_says_what_the_guest_itself_says(debian_guest: QemuGuest) -> None:
    guest = debian_guest
    guest.say("refresh", apiVersion=3)
    assert guest.hear("os-info")["kernel"] == guest.sh("uname -r")
    applications = guest.hear("applications")["applications"]
    assert len(applications) == int(guest.sh("dpkg-query -W -f '${db:Status-Status}\n' | grep -cx installed"))
    disk = guest.hear("disks-usage")["disks"][0]
    assert (disk["path"], disk["fs"]) == ("/", "ext4")
    assert disk["total"] == str(
        int(guest.sh("stat -f -c '%b * %S' / | sed 's/ . / /' | awk '{print $1*$2}'"))
    )
    pid = guest.sh("systemctl show -p MainPID --value olvm-guest-agent")
    resident_kib = int(guest.sh(f"awk '/VmRSS/ {{print $2}}' /proc/{pid}/status"))
    assert resident_kib < 15 * 1024
