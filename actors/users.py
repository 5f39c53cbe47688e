"""Users: who there is, what may change of them, and that an authenticated one is let into a machine.

Part of the `engine` actor. It decides on names, kinds and states; whether a password is right was decided before, by
`authentication.py`, and is believed only of a user who has not changed since. It never sees a password.
"""

from __future__ import annotations

from typing import assert_never

from actors import command_checks as check
from actors.behaviour import Turn
from actors.engine_commands import Inventory, describe
from olvm.model import messages as m
from olvm.model.errors import BadInput, Conflict, Denied, DuplicateName, NotFound
from olvm.model.limits import USERS_MAX
from olvm.model.names import check_name
from olvm.model.records import OperationRecord
from olvm.model.user_names import check_guest_user, check_session
from olvm.model.user_records import UserRecord, UserVerifierRecord

UserCommand = m.CreateUser | m.ChangeUser | m.RemoveUser | m.TrustedCommand


class Users:
    """The engine's book of users."""

    def __init__(self, users: dict[str, UserRecord], verifiers: dict[str, UserVerifierRecord]) -> None:
        self.by_name = users
        self.verifiers = verifiers

    def find(self, name: str) -> UserRecord:
        """Raises `NotFound`."""
        user = self.by_name.get(name)
        if user is None:
            raise NotFound(f"user {name} does not exist; `olvm user list` shows those that do")
        return user

    def accept(
        self, command: UserCommand, operation: OperationRecord, inventory: Inventory, turn: Turn
    ) -> None:
        """As `engine_commands.accept`. What is about users alone has ended when it is accepted.

        Raises:
            BadInput, NotFound, Conflict, Denied: refused; nothing has changed.
        """
        match command:
            case m.CreateUser():
                self._create(command, turn)
                kind, name = "create_user", command.name
            case m.ChangeUser():
                self._change(command, turn)
                kind, name = "update_user", command.name
            case m.RemoveUser():
                self._remove(command, turn)
                kind, name = "remove_user", command.name
            case m.SetVerifier():
                self._set_verifier(command, turn)
                kind = "renew_verifier" if command.revision else "set_password"
                name = command.name
            case m.LogUserOn():
                self._log_on(command, operation, inventory, turn)
                return
            case _:
                assert_never(command)
        describe(operation, kind, "user", name, name)
        turn.send("engine", m.OperationEnded(operation.id, True))

    # ------------------------------------------------------------------ the book

    def _create(self, command: m.CreateUser, turn: Turn) -> None:
        name, login = command.name, command.guest_user or command.name
        check_name("user", name)
        check_guest_user(name, login)
        if name in self.by_name:
            raise DuplicateName(f"user {name} exists already; choose another name or remove it first")
        if command.kind == "pam" and command.verifier:
            raise BadInput(f"user {name}: PAM keeps the password of a PAM account; leave it out")
        if len(self.by_name) >= USERS_MAX:
            raise Conflict(f"cannot create user {name}: there are {USERS_MAX}, which is all; remove some")
        user = UserRecord(name=name, kind=command.kind, guest_user=login, created_ns=turn.now_ns)
        self.by_name[name] = user
        turn.record("user_created", f"user {name} was created ({command.kind})", details={"user": name})
        if command.verifier:
            self._keep(user, command.verifier, turn)
        turn.save(user)

    def _change(self, command: m.ChangeUser, turn: Turn) -> None:
        user = self.find(command.name)
        login = command.guest_user or user.guest_user
        check_guest_user(user.name, login)
        status = command.status or user.status
        if (login, status) == (user.guest_user, user.status):
            return
        if status != user.status:
            word = "disabled" if status == "disabled" else "enabled"
            turn.record(f"user_{word}", f"user {user.name} was {word}", details={"user": user.name})
        if login != user.guest_user:
            turn.record(
                "user_changed",
                f"user {user.name} is {login} inside guests from now on",
                details={"user": user.name, "guest_user": login},
            )
        user.guest_user, user.status = login, status
        user.revision += 1
        turn.save(user)

    def _remove(self, command: m.RemoveUser, turn: Turn) -> None:
        user = self.find(command.name)
        del self.by_name[user.name]
        turn.erase(user)
        verifier = self.verifiers.pop(user.name, None)
        if verifier is not None:
            turn.erase(verifier)
        turn.record("user_removed", f"user {user.name} was removed", details={"user": user.name})

    def _set_verifier(self, command: m.SetVerifier, turn: Turn) -> None:
        user = self.find(command.name)
        if user.kind == "pam":
            raise Conflict(f"cannot set the password of {user.name}: it is PAM's; change it with passwd")
        if command.revision:
            if command.revision != user.revision:
                raise Conflict(f"user {user.name} was changed meanwhile; its verifier stays")
            self._save_verifier(user, command.verifier, turn)
            return
        self._keep(user, command.verifier, turn)
        user.revision += 1
        turn.save(user)
        turn.record(
            "user_password_changed", f"the password of {user.name} was changed", details={"user": user.name}
        )

    def _keep(self, user: UserRecord, verifier: str, turn: Turn) -> None:
        user.password_set_ns = turn.now_ns
        self._save_verifier(user, verifier, turn)

    def _save_verifier(self, user: UserRecord, verifier: str, turn: Turn) -> None:
        kept = UserVerifierRecord(name=user.name, verifier=verifier)
        self.verifiers[user.name] = kept
        turn.save(kept)

    # ------------------------------------------------------------------ machines

    def _log_on(
        self, command: m.LogUserOn, operation: OperationRecord, inventory: Inventory, turn: Turn
    ) -> None:
        user = self.by_name.get(command.user)
        if user is None or user.revision != command.revision or user.status != "active":
            raise Denied("the user was changed or removed while it was logging on; try again")
        item = inventory.vm(command.vm)
        check_session(command.session)
        arguments: m.Arguments = {"user": user.guest_user}
        if command.session:
            arguments["session"] = command.session
        task = m.VmTask(item.name, "log_on", arguments, command.timeout_s)
        check.vm_task(item.name, task)
        describe(operation, task.verb, "vm", item.id, item.name)
        turn.send(item.address, m.TaskVm(operation.id, task))
        user.logon_count += 1
        user.last_logon_ns = turn.now_ns
        turn.save(user)
        turn.record(
            "vm_logon_asked",
            f"user {user.name} was authenticated, to be logged on to {item.name} as {user.guest_user}",
            vm_id=item.id,
            vm_name=item.name,
            operation_id=operation.id,
            details={"user": user.name, "guest_user": user.guest_user, "session": command.session},
        )

    def told_of_denial(self, message: m.UserDenied, turn: Turn) -> None:
        """An event; nothing else follows from it here: who may try again when is the gateway's to say."""
        who = f"user {message.user}" if message.user else "a user who does not exist"
        times = f"; {message.failures} failed attempts" if message.failures > 1 else ""
        turn.record(
            "user_denied",
            f"{who} was not let into {message.vm or 'a machine'}: {message.reason}{times}",
            "alert" if message.alert else "warning",
            vm_name=message.vm,
            details={"user": message.user, "failures": message.failures},
        )
