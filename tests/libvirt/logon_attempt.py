"""What a test has run inside the Debian guest: `login` on a terminal with a token that came some way; or a question.

    logon_attempt.py login USER WAIT_S {take|keep|kept|elsewhere}
    logon_attempt.py refused
    logon_attempt.py ask

`login` writes its session to a file and waits at the agent as a greeter does, so that the host can log somebody on.
`take` leaves the token for this terminal, `keep` in a file too, `kept` waits for none and leaves that one again, and
`elsewhere` leaves here what was made for another terminal. It prints what was on the screen. `refused` prints the
agent's counts, `ask` its answer to whoever runs it. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import socket
import subprocess
import sys
import time

SOCKET = "/run/olvm-guest-agent.sock"
ELSEWHERE = "pts/99"
KEPT = "/run/kept-token"
STARTED = "/run/attempt"
WAIT_S = 60.0


def ask(said: dict[str, str], begun: str = "") -> str:
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(WAIT_S)
        line.connect(SOCKET)
        with contextlib.suppress(BrokenPipeError):  # it may be refused before it has asked
            line.sendall(json.dumps(said).encode())
        if begun:
            with open(STARTED + ".part", "w") as file:
                file.write(begun)
            os.replace(STARTED + ".part", STARTED)
        return line.recv(4096).decode()


def take(session: str) -> str:
    return str(json.loads(ask({"verb": "wait", "session": session}, session))["token"])


def leave(session: str, token: str) -> None:
    os.makedirs("/run/olvm-tokens", mode=0o700, exist_ok=True)
    path = "/run/olvm-tokens/" + session.replace("/", "_")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(token)


def watch(person: int) -> str:
    """Until `login` has decided."""
    seen = b""
    end_s = time.monotonic() + WAIT_S
    while time.monotonic() < end_s and b"Password" not in seen and b"$ " not in seen:
        if select.select([person], [], [], 0.2)[0]:
            seen += os.read(person, 4096)
    return seen.decode(errors="replace")


def login(user: str, wait_s: float, way: str) -> None:
    person, terminal = pty.openpty()
    session = os.ttyname(terminal)[5:]
    if way == "kept":
        with open(KEPT) as file:
            token = file.read()
    else:
        token = take(ELSEWHERE if way == "elsewhere" else session)
    if way == "keep":
        with open(KEPT, "w") as file:
            file.write(token)
    time.sleep(wait_s)
    leave(session, token)
    command = ["setsid", "--ctty", "/bin/login", "--", user]
    with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal) as process:
        print(json.dumps(watch(person)))
        process.kill()


def main(words: list[str]) -> None:
    if words[0] == "login":
        login(words[1], float(words[2]), words[3])
    elif words[0] == "refused":
        print(ask({"verb": "refused", "session": ""}))
    else:
        print(ask({"verb": "check", "user": "alice", "session": "ttyS0", "token": "x"}))


if __name__ == "__main__":
    main(sys.argv[1:])
