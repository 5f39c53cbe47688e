"""Users of a data center: whom the engine can authenticate, and as whom they are logged on inside machines.

Rule: a password goes from the caller into one ask, over the private socket, and is kept nowhere on the way.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from olvm.api.operation import Operation
from olvm.api.tables import Table
from olvm.model import client_protocol as p
from olvm.model import messages as m
from olvm.model.errors import BadInput
from olvm.model.names import check_name
from olvm.model.user_names import check_password
from olvm.model.user_records import UserRecord

if TYPE_CHECKING:
    from olvm.api.data_center import DataCenter

CREATE_WAIT_S = 120.0


class User:
    """One user, by name. Commands return durable operations."""

    def __init__(self, dc: DataCenter, name: str) -> None:
        self._dc = dc
        self.name = name

    def set_password(self, password: str, *, client_request_id: str | None = None) -> Operation:
        """Give a local account another password; what is kept is not it.

        Raises:
            BadInput: no password can be so: empty, too long, or with control characters.
            NotFound: there is no such user.
            Conflict: it is a PAM account, whose password is PAM's.
            NotSupportedYet: argon2-cffi is missing where the engine runs.
        """
        check_password(password)
        ask = p.SetPassword(self.name, password, client_request_id or os.urandom(16).hex())
        return self._dc.submit_ask(ask, f"set the password of {self.name}")

    def update(self, *, guest_user: str | None = None, client_request_id: str | None = None) -> Operation:
        """Change as whom it is logged on inside guests."""
        return self._change(m.ChangeUser(self.name, None, guest_user), "update", client_request_id)

    def disable(self, *, client_request_id: str | None = None) -> Operation:
        """Refuse its logons until `enable`; sessions that are open stay open."""
        return self._change(m.ChangeUser(self.name, "disabled"), "disable", client_request_id)

    def enable(self, *, client_request_id: str | None = None) -> Operation:
        return self._change(m.ChangeUser(self.name, "active"), "enable", client_request_id)

    def _change(self, command: m.ChangeUser, verb: str, request_id: str | None) -> Operation:
        return self._dc.submit(command, f"{verb} user {self.name}", request_id)

    def remove(self, *, client_request_id: str | None = None) -> Operation:
        return self._dc.submit(m.RemoveUser(self.name), f"remove user {self.name}", client_request_id)

    @property
    def record(self) -> UserRecord:
        """Its committed state."""
        return self._dc.users.row(self.name)

    @property
    def status(self) -> str:
        """active or disabled."""
        return self.record.status

    def __repr__(self) -> str:
        return f"<User {self.name}>"


class Users(Table[UserRecord]):
    record = UserRecord

    def create(
        self,
        name: str,
        *,
        password: str | None = None,
        pam: bool = False,
        guest_user: str = "",
        client_request_id: str | None = None,
    ) -> User:
        """Create a user.

        Args:
            password: of a local account; None: it cannot log on until `set_password`.
            pam: its password is the one that PAM knows, on the machine where the engine runs.
            guest_user: its login inside guests; empty: as its name.

        Raises:
            DuplicateName, BadInput: refused; nothing has changed.
            NotSupportedYet: argon2-cffi is missing where the engine runs.
        """
        self.create_later(
            name, password=password, pam=pam, guest_user=guest_user, client_request_id=client_request_id
        ).wait(CREATE_WAIT_S)
        return User(self._dc, name)

    def create_later(
        self,
        name: str,
        *,
        password: str | None = None,
        pam: bool = False,
        guest_user: str = "",
        client_request_id: str | None = None,
    ) -> Operation:
        """As `create`, returning the operation."""
        check_name("user", name)
        command = m.CreateUser(name, "pam" if pam else "local", guest_user)
        what = f"create user {name}"
        if password is None:
            return self._dc.submit(command, what, client_request_id)
        if pam:
            raise BadInput(f"user {name}: PAM keeps the password of a PAM account; leave it out")
        check_password(password)
        request_id = client_request_id or os.urandom(16).hex()
        return self._dc.submit_ask(p.SetPassword(name, password, request_id, command), what)

    def row(self, name: str) -> UserRecord:
        return self._one("user", name, "name")

    def get(self, name: str) -> User:
        """The user of that name; `NotFound` when there is none."""
        return User(self._dc, self.row(name).name)

    def __getitem__(self, name: str) -> User:
        """A handle without asking whether it exists."""
        return User(self._dc, name)

    def list(self, where: str = "") -> list[UserRecord]:
        return self.rows(where)
