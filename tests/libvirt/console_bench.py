"""A guest's text console made of this machine's own `login` and PAM, in a mount namespace that ends with the test.

/run is empty there and /etc has a layer of its own, so that neither users nor PAM's files of this machine change.
"""

from __future__ import annotations

import json
import os
import pty
import select
import socket
import subprocess
import time
import tty
from pathlib import Path
from typing import Any

from guest_agent import protocol as p
from guest_agent.build import build

WAIT_S = 20.0
SETUP = r"""
set -e
mount -t tmpfs run /run
mkdir -p /run/upper /run/work /run/lib
touch /run/utmp
mount -t overlay etc -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
for user in alice:4242 bob:4243; do
  echo "${user%:*}:x:${user#*:}:${user#*:}::/tmp:/bin/sh" >> /etc/passwd
  echo "${user%:*}:*:19000:0:99999:7:::" >> /etc/shadow
  echo "${user%:*}:x:${user#*:}:" >> /etc/group
done
cp "$1" /run/lib/agent.pyz
printf '#!/bin/sh\nexec /usr/bin/python3 -I -S /run/lib/agent.pyz pam\n' > /run/lib/olvm-pam
chmod 755 /run/lib/olvm-pam
sed -i '1i auth sufficient pam_exec.so quiet /run/lib/olvm-pam' /etc/pam.d/login
echo ready
exec sleep 600
"""


class Terminal:
    """A pseudoterminal: the test is the person before it."""

    def __init__(self, is_raw: bool = False) -> None:
        self.person, self.line = pty.openpty()
        if is_raw:
            tty.setraw(self.person)
            tty.setraw(self.line)
        self.session = os.ttyname(self.line).replace("/dev/", "", 1)
        self.seen = b""

    def type(self, text: bytes) -> None:
        os.write(self.person, text)

    def see(self, text: bytes) -> bytes:
        """Wait for it; returns all up to it."""
        end_s = time.monotonic() + WAIT_S
        while text not in self.seen:
            assert select.select([self.person], [], [], max(0.0, end_s - time.monotonic()))[0], (
                text,
                self.seen,
            )
            self.seen += os.read(self.person, 65536)
        before, _, self.seen = self.seen.partition(text)
        return before

    def close(self) -> None:
        os.close(self.person)
        os.close(self.line)


class ConsoleBench:
    def __init__(self, home: Path) -> None:
        pyz = home / "agent.pyz"
        build(str(pyz))
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SETUP, "sh", str(pyz)]
        self._space = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._space.stdout is not None
        assert self._space.stdout.readline() == b"ready\n"
        self.root = Path(f"/proc/{self._space.pid}/root")
        self._processes: list[subprocess.Popen[bytes]] = [self._space]
        self._terminals: list[Terminal] = []
        self.port = self.terminal(is_raw=True)
        self._begin(
            ["/usr/bin/python3", "-I", "-S", "/run/lib/agent.pyz", "agent", "/dev/" + self.port.session]
        )
        self.port.see(b"heartbeat")

    def terminal(self, is_raw: bool = False) -> Terminal:
        one = Terminal(is_raw)
        self._terminals.append(one)
        return one

    def _begin(self, command: list[str], terminal: Terminal | None = None) -> None:
        line = subprocess.DEVNULL if terminal is None else terminal.line
        session = [] if terminal is None else ["setsid", "--ctty"]
        inside = [*session, "nsenter", "--mount", "--target", str(self._space.pid), "--", *command]
        self._processes.append(subprocess.Popen(inside, stdin=line, stdout=line, stderr=line))

    def greet(self, terminal: Terminal) -> None:
        command = ["/usr/bin/python3", "-I", "-S", "/run/lib/agent.pyz", "console", terminal.session]
        self._begin(command, terminal)
        terminal.see(b"login: ")

    def login(self, terminal: Terminal, user: str) -> None:
        """What somebody with root's greeter would run, and who has left a token for it, or none."""
        self._begin(["/bin/login", "--", user], terminal)

    def order(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Its completion. A greeter that has just begun is waited for."""
        self.port.type(p.encode(name, {**arguments, "reply_id": "r"}))
        line = b"{" + self.port.see(b'"__name__":"completion"}').rpartition(b"\n")[2].lstrip(b"{")
        return dict(json.loads(line.rstrip(b",") + b"}"))

    def log_on(self, user: str, session: str) -> None:
        end_s = time.monotonic() + WAIT_S
        while not (answer := self.order("login", username=user, session=session))["ok"]:
            assert time.monotonic() < end_s, answer
            time.sleep(0.1)

    def token_for(self, user: str, session: str) -> str:
        """Taken as a greeter takes it, by a test that is root."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(WAIT_S)
            line.connect(str(self.root / "run/olvm-guest-agent.sock"))
            line.sendall(json.dumps({"verb": "wait", "session": session}).encode())
            self.log_on(user, session)
            return str(json.loads(line.recv(4096))["token"])

    def leave(self, token: str, session: str) -> None:
        place = self.root / "run/olvm-tokens"
        place.mkdir(mode=0o700, exist_ok=True)
        file = place / session.replace("/", "_")
        file.write_text(token)
        file.chmod(0o600)

    def refused(self) -> dict[str, int]:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(WAIT_S)
            line.connect(str(self.root / "run/olvm-guest-agent.sock"))
            line.sendall(b'{"verb":"refused","session":""}')
            counts: dict[str, int] = json.loads(line.recv(4096))
        return {reason: count for reason, count in counts.items() if count}

    def close(self) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
        if self._space.stdout is not None:
            self._space.stdout.close()
        for terminal in self._terminals:
            terminal.close()
