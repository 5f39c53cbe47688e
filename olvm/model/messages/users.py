"""What is said of users. No message carries a password; what carries a verifier does not show it."""

from __future__ import annotations

import msgspec

from olvm.model.messages.message import Message
from olvm.model.user_records import UserKind, UserStatus


class Veiled(Message, frozen=True):
    """A message whose field `verifier` is not for logs: it is left out of every printed form."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({shown})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        fields = msgspec.structs.asdict(self)
        return [(name, "…" if name == "verifier" and value else value) for name, value in fields.items()]


# ---------------------------------------------------------------- what a client may ask


class CreateUser(Veiled, frozen=True):
    """`guest_user` empty: as the name. The verifier is the gateway's to add, of a password that it was given."""

    name: str
    kind: UserKind = "local"
    guest_user: str = ""
    verifier: str = ""


class ChangeUser(Message, frozen=True):
    name: str
    status: UserStatus | None = None
    guest_user: str | None = None


class RemoveUser(Message, frozen=True):
    name: str


# ---------------------------------------------------------------- what the gateway asks, having seen a password


class SetVerifier(Veiled, frozen=True):
    """`revision` 0: a new password. Else the old one, hashed anew, unless the user was changed meanwhile."""

    name: str
    verifier: str
    revision: int = 0


class LogUserOn(Message, frozen=True):
    """The user was authenticated, as it stood at `revision`."""

    vm: str
    user: str
    revision: int
    session: str = ""
    timeout_s: float | None = None


class UserDenied(Message, frozen=True):
    """`user` empty: none that exists, and what was typed in its place is not repeated: it may be a password."""

    user: str
    vm: str
    reason: str
    failures: int = 1  # in a row
    alert: bool = False
