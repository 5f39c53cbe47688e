"""The laboratory's power switch: a process that turns its hosts off and on when asked over a socket.

It is what a BMC or a switched power strip is to computers: it works when the host does not, and a fence agent asks it
from anywhere. `fence_agents/fence_olvm_lab` speaks to it. One JSON object a line each way:

    {"plug": "h1", "action": "off"}  ->  {"ok": true, "power": "off"}
    {"plug": "h9", "action": "off"}  ->  {"ok": false, "message": "laboratory t1 has no host 'h9'; …"}

Actions are on, off, reboot, status and list. Off is a power failure; both off and on are done when they are answered.

It also watches the process that made the laboratory: when that has ended, by whatever, it clears the laboratory away.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from olvm.model.errors import OlvmError

if TYPE_CHECKING:
    from olvm.lab.hosts import Lab

MODULE = "olvm.lab.power_switch"
ASK_TIMEOUT_S = 5.0
REQUEST_BYTES_MAX = 4096
POLL_S = 0.02
LOOK_S = 5.0  # how often it looks whether the laboratory is still there


class Order(msgspec.Struct, frozen=True):
    plug: str = ""
    action: str = "status"


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    ok: bool
    power: str = ""
    plugs: tuple[str, ...] = ()
    message: str = ""


def socket_of(directory: Path) -> Path:
    return directory / "power.sock"


def start(directory: Path) -> subprocess.Popen[bytes]:
    """A process in a session of its own: Ctrl-C at the terminal does not reach it."""
    here = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH", ""))))
    with (directory / "power.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", MODULE, str(directory), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )


def wait_for(directory: Path, within_s: float) -> None:
    """Raises `OlvmError` when it does not come up."""
    deadline_s = time.monotonic() + within_s
    while not socket_of(directory).exists():
        if time.monotonic() > deadline_s:
            said = (directory / "power.log").read_text(errors="replace")[-800:]
            raise OlvmError(f"the power switch in {directory} did not come up: {said}")
        time.sleep(POLL_S)


def serve(lab: Lab, maker: int) -> None:
    """Until the maker has ended or the laboratory is gone."""
    with socket.socket(socket.AF_UNIX) as listening, _listening_to(maker) as ended:
        path = socket_of(lab.directory)
        path.unlink(missing_ok=True)
        with _short(path) as name:
            listening.bind(name)
        path.chmod(0o600)
        listening.listen()
        while path.exists():
            ready, _, _ = select.select([listening.fileno(), ended], [], [], LOOK_S)
            if ended in ready:
                return
            if listening.fileno() in ready:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(ASK_TIMEOUT_S)
                    connection.sendall(msgspec.json.encode(_answer(lab, connection)) + b"\n")


@contextlib.contextmanager
def _listening_to(pid: int) -> Iterator[int]:
    """A descriptor that can be read when the process has ended."""
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for a socket whose path may be longer than the 107 bytes that an address has room for."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def _answer(lab: Lab, connection: socket.socket) -> Answer:
    line = b""
    while b"\n" not in line and len(line) < REQUEST_BYTES_MAX:
        data = connection.recv(REQUEST_BYTES_MAX)
        if not data:
            break
        line += data
    try:
        return _obey(lab, msgspec.json.decode(line, type=Order))
    except msgspec.MsgspecError as error:
        return Answer(ok=False, message=f"this is no order: {error}")
    except OlvmError as error:
        return Answer(ok=False, message=str(error))


def _obey(lab: Lab, order: Order) -> Answer:
    """Raises `OlvmError`. An order that holds already succeeds."""
    if order.action == "list":
        return Answer(ok=True, plugs=tuple(lab.hosts))
    host = lab.host(order.plug)
    if order.action not in ("on", "off", "reboot", "status"):
        return Answer(
            ok=False, message=f"there is no action {order.action!r}; there are on, off, reboot, status, list"
        )
    if order.action in ("off", "reboot"):
        host.crash()
    if order.action in ("on", "reboot") and not host.is_on:
        host.boot()
    return Answer(ok=True, power="on" if host.is_on else "off")


def main(directory: str, maker: str) -> None:
    from olvm.lab.hosts import Lab

    lab = Lab.found(Path(directory))
    # Ended before it could be listened to: there is nobody to serve either.
    with contextlib.suppress(ProcessLookupError):
        serve(lab, int(maker))
    lab.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
