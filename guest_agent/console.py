"""A text console's greeter: an ordinary login prompt, until the agent says that somebody is logged on from outside.

It decides nothing: the system's own `login` does, through PAM. Run by init in place of getty, once a session.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time

from guest_agent.credentials import SOCKET
from guest_agent.pam import TOKENS, token_file

LOGIN = "/bin/login"
AGAIN_S = 2.0
HANG_UP_S = 0.5
NAME_BYTES_MAX = 64


def main(session: str) -> int:
    take_terminal(session)
    settle_terminal()
    agent = wait_at_agent(session)  # before the prompt: who sees that may be logged on
    prompt()
    line = b""
    while True:
        if agent is None:
            agent = wait_at_agent(session)
        watched = [0] + ([agent] if agent is not None else [])
        ready, _, _ = select.select(watched, [], [], AGAIN_S)
        if agent is not None and agent in ready:
            told = agent.recv(4096)
            agent.close()
            agent = None
            if told:
                log_on(session, told)
            time.sleep(AGAIN_S)  # the agent ended, or began anew
        if 0 in ready:
            data = os.read(0, 256)
            if not data:
                time.sleep(HANG_UP_S)
                return 0  # the line was hung up, or somebody plays with ^D
            line = (line + data)[:NAME_BYTES_MAX]
            if b"\n" in line:
                name = line.split(b"\n", 1)[0].decode("utf-8", "replace").strip()
                if name and not name.startswith("-"):
                    os.execv(LOGIN, [LOGIN, "--", name])
                line = b""
                prompt()


def take_terminal(session: str) -> None:
    """The session's terminal as this process's own, as getty makes it."""
    if session and os.isatty(0) and os.ttyname(0) == "/dev/" + session:
        return
    with contextlib.suppress(PermissionError):  # it leads a session already
        os.setsid()
    terminal = os.open("/dev/" + session, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(terminal, number)
    if terminal > 2:
        os.close(terminal)


def settle_terminal() -> None:
    """As getty leaves it to login: the session before may have left it without echo, or raw."""
    try:
        import termios
    except ImportError:  # a Python of few modules; what init made of the terminal must do
        return
    with contextlib.suppress(termios.error):
        settings = termios.tcgetattr(0)
        settings[0] |= termios.ICRNL | termios.IXON
        settings[1] |= termios.OPOST | termios.ONLCR
        settings[3] |= termios.ICANON | termios.ISIG | termios.ECHO | termios.ECHOE | termios.ECHOK
        termios.tcsetattr(0, termios.TCSADRAIN, settings)


def prompt() -> None:
    sys.stdout.write(f"\r\n{socket.gethostname()} login: ")
    sys.stdout.flush()


def wait_at_agent(session: str) -> socket.socket | None:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        line.connect(SOCKET)
        line.sendall(json.dumps({"verb": "wait", "session": session}).encode())
    except OSError:
        line.close()
        return None
    return line


def log_on(session: str, told: bytes) -> None:
    """Leave the token where PAM's question finds it, and become login. Returns only if what was told is nothing."""
    try:
        said = json.loads(told.decode())
        user, token = str(said["user"]), str(said["token"])
    except (ValueError, KeyError, TypeError):
        return
    os.makedirs(TOKENS, mode=0o700, exist_ok=True)
    path = token_file(session)
    if os.path.exists(path):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, token.encode())
    os.close(descriptor)
    sys.stdout.write(f"{user}\r\n")
    sys.stdout.flush()
    os.execv(LOGIN, [LOGIN, "--", user])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
