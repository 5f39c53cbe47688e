"""What pam_exec runs: asks the agent whether this user may have this session now. Exit code 0 lets PAM go on.

PAM says who and where in the environment; the greeter has left the token in a file that only root can read.
"""

from __future__ import annotations

import os
import stat
import sys
import syslog

from guest_agent.credentials import SOCKET, ask

TIMEOUT_S = 3.0
TOKEN_CHARS_MAX = 256
TOKENS = "/run/olvm-tokens"
CLOSED = ("/run/nologin", "/etc/nologin")  # what pam_nologin looks for, whose turn comes after a token's


def token_file(session: str) -> str:
    return os.path.join(TOKENS, session.replace("/", "_"))


def take_token(path: str) -> str:
    """What the greeter left; it is gone then, whatever comes of it. Empty: nothing, or not by root alone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as file:
        os.unlink(path)
        about = os.fstat(descriptor)
        is_roots = about.st_uid == os.geteuid() and not about.st_mode & 0o077 and stat.S_ISREG(about.st_mode)
        return file.read(TOKEN_CHARS_MAX).strip() if is_roots else ""


def main(socket_path: str = SOCKET) -> int:
    session = os.environ.get("PAM_TTY", "").replace("/dev/", "", 1)
    user = os.environ.get("PAM_USER", "")
    path = token_file(session)
    token = take_token(path)
    if not token:
        return 1  # an ordinary login, with a password
    if user != "root" and any(os.path.exists(one) for one in CLOSED):
        syslog.syslog(
            syslog.LOG_WARNING, f"logon of {user!r} on {session!r} refused: this guest is closed to logins"
        )
        return 1
    try:
        answer = ask(
            socket_path, {"verb": "check", "user": user, "session": session, "token": token}, TIMEOUT_S
        )
    except (OSError, ValueError) as error:
        syslog.syslog(syslog.LOG_WARNING, f"logon of {user!r} on {session!r}: {error}")
        return 1
    if not answer.get("ok"):
        return 1  # the agent has said why, in the system's log
    return 0


if __name__ == "__main__":
    sys.exit(main())
