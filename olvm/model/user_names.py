"""Which passwords, logins and session names can be: what every way in checks before anything is sent or kept.

Rule: no message here repeats a password, or says more of one than how long it may be.
"""

from __future__ import annotations

import re

from olvm.model.errors import BadInput
from olvm.model.limits import PASSWORD_BYTES_MAX

# As the guest agent has it: the login goes to a terminal and to `login`. A domain after it is for older agents.
_GUEST_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}\$?(@[A-Za-z0-9][A-Za-z0-9.-]{0,252})?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SESSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./:-]{0,63}")


def check_password(password: str) -> None:
    """Raises `BadInput`. Empty ones, and what no keyboard or PAM could pass on, are refused."""
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        raise BadInput("the password is not valid text; send it as UTF-8") from None
    if not 1 <= size <= PASSWORD_BYTES_MAX:
        raise BadInput(f"a password has 1 to {PASSWORD_BYTES_MAX} bytes of UTF-8, this one has {size}")
    if _CONTROL.search(password):
        raise BadInput("the password holds a control character, which no prompt would take; choose another")


def check_guest_user(user: str, guest_user: str) -> None:
    """Raises `BadInput`, which names both."""
    if not _GUEST_USER.fullmatch(guest_user):
        raise BadInput(
            f"user {user}: {guest_user[:40]!r} cannot be a login inside a guest (a letter, digit or '_', then up to "
            "31 of letters, digits, '_', '.' and '-'); name one with --guest-user"
        )


def check_session(session: str) -> None:
    """Raises `BadInput`. Empty is the guest's own choice."""
    if session and not _SESSION.fullmatch(session):
        raise BadInput(f"session {session[:40]!r} is no name of one; write it as the guest does, as in ttyS0")
