"""A question to logind over a bus that answers, or does anything else: the agent is told "not locked" and goes on."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from guest_agent.logind import METHOD_RETURN, Logind, message, reply_serial

OK = b"OK 0123\r\n"


def reply(serial: int, body: bytes) -> bytes:
    """With a signature, which D-Bus wants, and a sender, which the bus adds."""
    fields = struct.pack("<BB2sI", 5, 1, b"u\0", serial)
    fields += struct.pack("<BB2sI", 7, 1, b"s\0", 4) + b":1.2\0\0\0\0"
    fields += b"\x08\x01g\0\x01v\0"
    start = struct.pack("<4BIII", ord("l"), METHOD_RETURN, 0, 1, len(body), 99, len(fields))
    return start + fields + b"\0" * (-len(fields) % 8) + body


def variant(is_true: bool) -> bytes:
    return b"\1b\0\0" + struct.pack("<I", is_true)


def ask(path: Path, talk: Callable[[socket.socket], None]) -> bool:
    """Of a session, while `talk` is the bus's end of the connection."""
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(path))
        bus.listen(1)

        def serve() -> None:
            caller, _ = bus.accept()
            with caller:
                caller.settimeout(5)
                talk(caller)

        server = threading.Thread(target=serve)
        server.start()
        logind = Logind(str(path))
        is_locked = logind.is_locked("3")
        logind.close()
        server.join()
    return is_locked


def hear(caller: socket.socket, word: bytes) -> bytes:
    """A stream: what was sent in two pieces may come in one, and the other way round."""
    heard = b""
    while word not in heard:
        more = caller.recv(4096)
        assert more, heard
        heard += more
    return heard


@pytest.mark.parametrize("is_locked", [False, True])
def test_logind_that_answers_is_believed(tmp_path: Path, is_locked: bool) -> None:
    asked = []

    def talk(caller: socket.socket) -> None:
        assert caller.recv(256).startswith(b"\0AUTH EXTERNAL ")
        caller.sendall(OK)
        hear(caller, b"Hello")
        caller.sendall(reply(7, b"") + reply(1, b"\5\0\0\0:1.42\0"))  # what is nobody's reply is passed over
        asked.append(hear(caller, b"LockedHint"))
        caller.sendall(reply(2, variant(is_locked)))

    assert ask(tmp_path / "bus", talk) is is_locked
    assert b"/org/freedesktop/login1/session/_33\0" in asked[0]


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"REJECTED\r\n",
        b"x" * 9000,
        OK + b"\0" * 16,
        OK + b"\xff" * 64,
        OK + b"l\2\0\1" + struct.pack("<III", 2**31, 1, 0),
        OK + b"l\2\0\1" + struct.pack("<III", 0, 1, 8) + b"\5\1u\0",
        OK + reply(1, b"") + reply(2, b"\1b"),
    ],
    ids=["hangs up", "rejects", "endless", "zeros", "noise", "huge", "half", "short"],
)
def test_logind_that_answers_otherwise_counts_as_not_locked(tmp_path: Path, said: bytes) -> None:
    assert ask(tmp_path / "bus", lambda caller: caller.sendall(said)) is False


def test_logind_that_is_not_there_is_not_asked_again_at_once(tmp_path: Path) -> None:
    logind = Logind(str(tmp_path / "none"))
    assert not logind.is_locked("3")
    with socket.socket(socket.AF_UNIX) as bus:
        bus.bind(str(tmp_path / "none"))
        bus.listen(1)
        bus.setblocking(False)
        assert not logind.is_locked("3")
        with pytest.raises(BlockingIOError):
            bus.accept()


def test_message_of_the_bus_is_aligned() -> None:
    for text in ("", "a", "abcdefg", "abcdefgh"):
        said = message(1, {1: "/" + text, 3: text}, (text, text))
        _, _, _, _, body, _, fields = struct.unpack_from("<4BIII", said)
        assert len(said) == 16 + fields + -fields % 8 + body


@pytest.mark.parametrize(
    "fields", [b"", b"\5", b"\5\1u\0", b"\5\1g\0\xff\xff\xff\xff", b"\1\1s\0" + b"\xff" * 4]
)
def test_reply_serial_of_noise_is_none(fields: bytes) -> None:
    assert reply_serial(fields) == 0
