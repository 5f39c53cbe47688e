"""`olvm vm logon`, `logoff` and `lock`: sessions inside machines. Its commands stand among those of `olvm vm`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from cyclopts import App, Parameter

from olvm.cli.changes import Asked, carry_out, follow, once_each
from olvm.cli.completer import user_names, vm_names
from olvm.cli.connection import data_center
from olvm.cli.options import CHANGING, Changing, Deadline, VmNames
from olvm.cli.passwords import PasswordStdin, asked_password
from olvm.model import messages as m
from olvm.model.user_names import check_session

Session = Annotated[
    str, Parameter(help="As the guest calls it, as in ttyS0; if not said, its own choice.", metavar="SESSION")
]


def logon(
    name: Annotated[str, Parameter(help="Name or id.", completer=vm_names)],
    /,
    *,
    user: Annotated[str, Parameter(help="Of `olvm user list`.", completer=user_names, metavar="NAME")],
    session: Session = "",
    password_stdin: PasswordStdin = False,
    deadline: Deadline = None,
    options: Changing = CHANGING,
) -> int:
    """Log a user on inside a machine: the password is asked for here, and not once more there."""
    check_session(session)
    with data_center(options) as dc:
        password = asked_password(user, from_stdin=password_stdin)
        operation = dc.vms[name].log_on(user, password, session=session, timeout=deadline)
        return follow([(f"log {user} on to {name}", operation)], options)


def _session_task(verb: str) -> Callable[..., int]:
    def command(
        names: VmNames, /, *, session: Session = "", deadline: Deadline = None, options: Changing = CHANGING
    ) -> int:
        check_session(session)
        arguments: m.Arguments = {"session": session} if session else {}
        asked = [
            Asked(command=m.VmTask(name, verb, arguments, deadline), what=f"{verb} of vm {name}")
            for name in once_each(names)
        ]
        with data_center(options) as dc:
            return carry_out(dc, asked, options)

    return command


def add_to(app: App) -> None:
    app.command(logon, name="logon")
    app.command(
        _session_task("log_off"), name="logoff", help="End the sessions of who is logged on in guests."
    )
    app.command(_session_task("lock_screen"), name="lock", help="Lock the screens of guests.")
