"""Where a password comes from: a terminal that does not show it, or a pipe. Never an argument: those are seen by all.

Rule: no message and no traceback repeats what was typed.
"""

from __future__ import annotations

import getpass
import sys
import warnings
from typing import Annotated

from cyclopts import Parameter

from olvm.model.errors import BadInput
from olvm.model.limits import PASSWORD_BYTES_MAX
from olvm.model.user_names import check_password

PasswordStdin = Annotated[
    bool,
    Parameter(
        name="--password-stdin", negative=(), help="Read the password from standard input: its first line."
    ),
]


def asked_password(who: str, *, from_stdin: bool, twice: bool = False) -> str:
    """The password of `who`, as a person types it or a program sends it.

    Args:
        twice: a new one, which a typing error would lock away.

    Raises:
        BadInput: none came, it cannot be one, or nobody can be asked unseen.
    """
    password = _from_pipe() if from_stdin else _from_terminal(who, twice=twice)
    check_password(password)
    return password


def _from_pipe() -> str:
    if sys.stdin.isatty():
        raise BadInput(
            "--password-stdin reads from a pipe, and here is a terminal, which would show it; leave it out"
        )
    line = sys.stdin.buffer.readline(
        PASSWORD_BYTES_MAX + 3
    )  # with its end, and one byte to see that it is too long
    try:
        return line.rstrip(b"\r\n").decode()
    except UnicodeDecodeError:
        raise BadInput("the password on standard input is not UTF-8") from None


def _from_terminal(who: str, *, twice: bool) -> str:
    with warnings.catch_warnings():
        # Without a terminal getpass would read from what there is, and show it.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            password = getpass.getpass(f"Password of {who}: ")
            again = getpass.getpass("Again: ") if twice else password
        except (getpass.GetPassWarning, EOFError, OSError):
            raise BadInput(
                f"nobody can be asked for the password of {who} unseen; send it with --password-stdin"
            ) from None
    if again != password:
        raise BadInput("the two passwords differ; nothing was changed")
    return password
