"""Whether PAM accepts a password, by a child process that is ended when it takes too long.

The service is `olvm` where the machine has a file of that name, else `login`. An engine that is not root can check
its own user's password alone with the usual modules: PAM then says that the others are wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from actors.pam_check import CODE_BASE, NO_LIBRARY, NO_PACKAGE
from olvm.model.errors import NotSupportedYet, OperationFailed
from olvm.model.limits import PAM_CHECK_S_MAX

SERVICES = ("olvm", "login")
SERVICE_DIRECTORIES = (Path("/etc/pam.d"), Path("/usr/lib/pam.d"))
PROGRAM = Path(__file__).with_name("pam_check.py")
# Of PAM's codes those that say no; the others say that it could not find out.
REFUSALS = {
    6: "permission denied",
    7: "wrong password",
    8: "insufficient credentials",
    10: "no such account",
    11: "too many attempts",
    12: "a new password is required",
    13: "account expired",
    16: "credentials expired",
    17: "credentials refused",
    27: "password expired",
}


class PamAccounts:
    """May be asked from several threads; each question is a process."""

    def __init__(
        self, service: str = "", timeout_s: float = PAM_CHECK_S_MAX, program: Path = PROGRAM
    ) -> None:
        self._service = service
        self._program = program
        self._timeout_s = timeout_s
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._closed = False

    def refusal(self, name: str, password: str) -> str:
        """Why PAM does not accept it; empty: it does.

        Raises:
            NotSupportedYet: python-pam or libpam is missing.
            OperationFailed: PAM could not find out, or not in time.
        """
        service = self._service or _service()
        asked = json.dumps({"user": name, "password": password, "service": service}).encode()
        code = self._ask(asked)
        if code == 0:
            return ""
        if code == NO_PACKAGE:
            raise NotSupportedYet(
                "PAM accounts need python-pam where the engine runs: pip install 'olvm[sso]'"
            )
        if code == NO_LIBRARY:
            raise NotSupportedYet("PAM accounts need libpam where the engine runs: apt-get install libpam0g")
        if code - CODE_BASE in REFUSALS:
            return REFUSALS[code - CODE_BASE]
        what = f"PAM's code {code - CODE_BASE}" if code > CODE_BASE else f"its process ended with {code}"
        raise OperationFailed(
            f"PAM service {service} could not check the password of {name}: {what}; see the system's log"
        )

    def close(self) -> None:
        with self._lock:
            self._closed = True
            running = list(self._running)
        for child in running:
            _end(child)

    def _ask(self, asked: bytes) -> int:
        # -P: the directory of the program holds modules with names of other things, and is no place to import from.
        with subprocess.Popen(
            [sys.executable, "-P", str(self._program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that what PAM's modules start is ended with it
        ) as child:
            with self._lock:
                self._running.add(child)
                late = self._closed
            try:
                if late:
                    _end(child)
                child.communicate(asked, timeout=self._timeout_s)
            except subprocess.TimeoutExpired:
                raise OperationFailed(
                    f"PAM did not answer within {self._timeout_s:g} s; see the system's log"
                ) from None
            finally:
                _end(child)
                with self._lock:
                    self._running.discard(child)
        return child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):  # it ended just now
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _service() -> str:
    for name in SERVICES:
        if any((directory / name).is_file() for directory in SERVICE_DIRECTORIES):
            return name
    return SERVICES[-1]
