"""`olvm user`: whom the engine authenticates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from cyclopts import App, Parameter

from olvm.cli.changes import Asked, carry_out, confirm_removal, follow, once_each
from olvm.cli.completer import user_names
from olvm.cli.connection import data_center
from olvm.cli.listing import list_records, show_record
from olvm.cli.options import CHANGING, LISTING, PRINTING, Changing, Listing, Printing, Yes
from olvm.cli.passwords import PasswordStdin, asked_password
from olvm.model import messages as m
from olvm.model.errors import BadInput
from olvm.model.user_records import UserStatus

USUAL_COLUMNS = ("name", "kind", "status", "guest_user", "password_set_ns", "logon_count", "last_logon_ns")
UserName = Annotated[str, Parameter(help="Name.", completer=user_names)]
UserNames = Annotated[list[str], Parameter(help="Names.", completer=user_names)]
GuestUser = Annotated[
    str, Parameter(help="Its login inside guests; if not said, as its name.", metavar="LOGIN")
]

app = App(name="user", help="Users: whom the engine authenticates, to be logged on inside machines.")


@app.command(name="list")
def list_(*, options: Listing = LISTING) -> int:
    """List users."""
    with data_center(options) as dc:
        return list_records(dc.users, options, USUAL_COLUMNS)


@app.command
def show(name: UserName, /, *, options: Printing = PRINTING) -> int:
    """Show everything about one user. Nothing tells its password."""
    with data_center(options) as dc:
        return show_record(dc.users.row(name), options)


@app.command
def create(
    name: Annotated[str, Parameter(help="Name.")],
    /,
    *,
    pam: Annotated[
        bool, Parameter(negative=(), help="Its password is the one that PAM knows where the engine runs.")
    ] = False,
    guest_user: GuestUser = "",
    password_stdin: PasswordStdin = False,
    without_password: Annotated[
        bool, Parameter(negative=(), help="It cannot log on until `olvm user password`.")
    ] = False,
    options: Changing = CHANGING,
) -> int:
    """Create a user; the password of a local account is asked for."""
    if (pam or without_password) and password_stdin:
        raise BadInput(
            "--password-stdin goes with an account whose password is kept here; leave one of them out"
        )
    with data_center(options) as dc:
        password = None
        if not (pam or without_password):
            password = asked_password(name, from_stdin=password_stdin, twice=True)
        operation = dc.users.create_later(name, password=password, pam=pam, guest_user=guest_user)
        return follow([(f"create user {name}", operation)], options)


@app.command
def password(
    name: UserName, /, *, password_stdin: PasswordStdin = False, options: Changing = CHANGING
) -> int:
    """Set the password of a local account; it is asked for."""
    with data_center(options) as dc:
        new = asked_password(name, from_stdin=password_stdin, twice=True)
        return follow([(f"set the password of {name}", dc.users[name].set_password(new))], options)


@app.command
def update(
    name: UserName,
    /,
    *,
    guest_user: Annotated[str | None, Parameter(help="Its login inside guests.", metavar="LOGIN")] = None,
    options: Changing = CHANGING,
) -> int:
    """Change what is given."""
    with data_center(options) as dc:
        asked = Asked(command=m.ChangeUser(name, None, guest_user), what=f"update user {name}")
        return carry_out(dc, [asked], options)


@app.command
def remove(names: UserNames, /, *, yes: Yes = False, options: Changing = CHANGING) -> int:
    """Remove users. Sessions that are open inside machines stay open."""
    chosen = once_each(names)
    with data_center(options) as dc:
        confirm_removal("user", chosen, yes)
        asked = [Asked(command=m.RemoveUser(name), what=f"remove user {name}") for name in chosen]
        return carry_out(dc, asked, options)


def _switching(verb: str, status: UserStatus) -> Callable[..., int]:
    def command(names: UserNames, /, *, options: Changing = CHANGING) -> int:
        asked = [
            Asked(command=m.ChangeUser(name, status), what=f"{verb} user {name}") for name in once_each(names)
        ]
        with data_center(options) as dc:
            return carry_out(dc, asked, options)

    return command


app.command(_switching("disable", "disabled"), name="disable", help="Refuse logons of users from now on.")
app.command(_switching("enable", "active"), name="enable", help="Let users log on again.")
