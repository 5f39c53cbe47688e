"""A user is logged on at a text console without a password, by real `login` and PAM; every misuse meets a prompt."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from guest_agent.credentials import LIFE_S
from guest_agent.sessions import UTMP_BYTES
from tests.libvirt.console_bench import ConsoleBench

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
