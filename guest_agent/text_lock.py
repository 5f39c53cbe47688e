"""A text console is locked: what runs there is stopped, and only its user's password or the host lets it go on.

logind's signal to lock has nobody who obeys it on a console without a desktop. Rules:
1. The lock stands in a file of root's from before the first process is stopped until after the last one goes on: an
   agent that is started again keeps it.
2. The terminal's own settings are in that file too; whoever ends the lock gives them back.
3. It ends with the session: when the session's leader is gone there is nothing to lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import termios
import time
from typing import Any

from guest_agent.sessions import LOCKS, lock_file, lock_of, read_lock

DIRECTORY = "/" + LOCKS
CHECK_PASSWORD = "/sbin/unix_chkpwd"  # noqa: S105 - PAM's own program, where a local account's password is compared
PASSWORD_BYTES_MAX = 512
LOOK_S = 1.0
AFTER_WRONG_S = 2.0
ROUNDS_MAX = 10


# ---------------------------------------------------------------- processes


def _stat(pid: int) -> tuple[str, int, int, int, int] | None:
    """State, parent, session, terminal, start of a process; nothing if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            words = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], int(words[1]), int(words[3]), int(words[4]), int(words[19])


def _device(terminal: int) -> int:
    """As os.stat names a device what /proc/PID/stat calls its terminal."""
    return os.makedev((terminal >> 8) & 0xFFF, (terminal & 0xFF) | ((terminal >> 12) & 0xFFF00))


def processes_of(line: str) -> list[int]:
    """All whose terminal it is, parents before children."""
    device = os.stat("/dev/" + line).st_rdev
    found = []
    for name in os.listdir("/proc"):
        about = _stat(int(name)) if name.isdigit() else None
        if about is not None and about[3] and _device(about[3]) == device and about[0] not in "ZX":
            found.append((about[4], int(name)))
    return [pid for _, pid in sorted(found)]


def _leader(line: str) -> tuple[int, int]:
    """The session's leader and when it began; zeros: there is none."""
    for pid in processes_of(line):
        about = _stat(pid)
        if about is not None and about[2] == pid:
            return pid, about[4]
    return 0, 0


def _stop(line: str) -> None:
    """Until none runs: one that was not stopped yet may have begun another."""
    for _ in range(ROUNDS_MAX):
        running = [pid for pid in processes_of(line) if (_stat(pid) or "T")[0] not in "tT"]
        if not running:
            return
        send(running, signal.SIGSTOP)
        time.sleep(0.02)


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


# ---------------------------------------------------------------- the lock


def lock(line: str, user: str) -> str:
    """Lock a terminal at which `user` is logged on. Empty: it is locked; else why not."""
    if lock_of(line):
        return ""
    pid, began = _leader(line)
    if not pid:
        return f"nobody is logged on at {line}"
    terminal = os.open("/dev/" + line, os.O_RDWR | os.O_NOCTTY)
    try:
        settings = termios.tcgetattr(terminal)
    finally:
        os.close(terminal)
    settings[6] = [one.hex() if isinstance(one, bytes) else one for one in settings[6]]
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    leader = {"leader": [pid, began], "keeper": [0, 0]}
    _write(line, {"user": user, "line": line, "settings": settings, **leader})
    _stop(line)
    keep(line)
    return ""


def _write(line: str, said: dict[str, Any]) -> None:
    part = lock_file(line) + ".part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(said, file)
    os.replace(part, lock_file(line))


def keep(line: str) -> None:
    """Begin the process that asks for the password; it lives on when its parent ends."""
    if os.fork():
        return
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        os.closerange(0, 1024)
        for _ in range(3):
            os.open("/dev/null", os.O_RDWR)
        Keeper(line).run()
    finally:
        os._exit(0)


def keep_all() -> None:
    """An agent that begins finds what the last one locked, and whose keepers ended with it."""
    for line, said in _locks():
        if not _lives(said["keeper"]):
            keep(line)


def release(line: str) -> str:
    """The host's word ends a lock, whether its keeper lives or not."""
    said = read_lock(line)
    if said:
        if _lives(said["keeper"]):
            send([said["keeper"][0]], signal.SIGKILL)
        _give_back(line, said)
    return ""


def release_all() -> None:
    for line, _ in _locks():
        release(line)


def _locks() -> list[tuple[str, dict[str, Any]]]:
    names = os.listdir(DIRECTORY) if os.path.isdir(DIRECTORY) else []
    locks = [read_lock(name) for name in names]  # a file's name has no slash, as lock_file makes it
    return [(str(said["line"]), said) for said in locks if said]


def _lives(process: list[int]) -> bool:
    """That very process: its number may be another's by now."""
    about = _stat(process[0])
    return about is not None and about[4] == process[1] and about[0] not in "ZX"


def _give_back(line: str, said: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, termios.error):  # the terminal may have gone with its session
        if _lives(said["leader"]):  # else the terminal is somebody else's by now
            _restore(line, said["settings"])
            # Children first: a shell that goes on must not see its own still stopped, or it takes the terminal back.
            send(list(reversed(processes_of(line))), signal.SIGCONT)
    if read_lock(line).get("leader") == said["leader"]:  # else it is the next session's
        with contextlib.suppress(FileNotFoundError):
            os.unlink(lock_file(line))


def _restore(line: str, settings: list[Any]) -> None:
    settings[6] = [bytes.fromhex(one) if isinstance(one, str) else one for one in settings[6]]
    terminal = os.open("/dev/" + line, os.O_RDWR | os.O_NOCTTY)
    try:
        termios.tcsetattr(terminal, termios.TCSAFLUSH, settings)
        os.write(terminal, b"\r\n")
    finally:
        os.close(terminal)


class Keeper:
    """The process before a locked terminal. Killed, it leaves the lock as it is."""

    def __init__(self, line: str) -> None:
        self._line = line
        self._said = read_lock(line)
        about = _stat(os.getpid())
        assert about is not None
        self._said["keeper"] = [os.getpid(), about[4]]
        _write(line, self._said)

    def run(self) -> None:
        """Until the password is right or the session has ended. What fails meanwhile ends no lock."""
        is_open = False
        while not is_open and _lives(self._said["leader"]):
            with contextlib.suppress(OSError, termios.error, subprocess.SubprocessError):
                is_open = self._ask()
            time.sleep(0 if is_open else AFTER_WRONG_S)
        _give_back(self._line, self._said)

    def _ask(self) -> bool:
        terminal = os.open("/dev/" + self._line, os.O_RDWR | os.O_NOCTTY)
        try:
            _stop(self._line)
            self._no_echo(terminal)
            os.write(terminal, f"\r\nLocked by {self._said['user']}. Password: ".encode())
            return self._is_right(self._password(terminal))
        finally:
            os.close(terminal)

    def _no_echo(self, terminal: int) -> None:
        settings = termios.tcgetattr(terminal)
        settings[0] |= termios.ICRNL
        settings[3] = (settings[3] | termios.ICANON) & ~(termios.ECHO | termios.ECHONL | termios.ISIG)
        termios.tcsetattr(terminal, termios.TCSAFLUSH, settings)

    def _password(self, terminal: int) -> bytearray:
        """A line; empty when the session has ended."""
        while _lives(self._said["leader"]):
            if select.select([terminal], [], [], LOOK_S)[0]:
                return bytearray(os.read(terminal, PASSWORD_BYTES_MAX).split(b"\n")[0])
        return bytearray()

    def _is_right(self, password: bytearray) -> bool:
        if not password or not os.path.exists(CHECK_PASSWORD):
            return False
        asked = bytes(password) + b"\0"
        password[:] = bytes(len(password))
        done = subprocess.run(
            [CHECK_PASSWORD, self._said["user"], "nonull"], input=asked, check=False,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode == 0
