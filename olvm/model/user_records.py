"""Users as they are kept: who there is, and apart from that what their passwords are checked with.

Rule: no record holds a password or a hash of one. A verifier is the keyed digest of a hash; its key is in a file of
its own, so that whoever reads the tables, or a copy of them, has nothing to guess passwords with. SQL refuses the
table of verifiers all the same.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from olvm.model.record import Record

UserKind = Literal["local", "pam"]
UserStatus = Literal["active", "disabled"]


class UserRecord(Record):
    """Owner: `engine`. One whom the engine can authenticate."""

    TABLE: ClassVar[str] = "users"
    KEY: ClassVar[str] = "name"

    name: str
    kind: UserKind = "local"
    status: UserStatus = "active"
    guest_user: str = ""  # the login inside guests; never empty once it is created
    revision: int = 1  # grows with each change; what was checked against an older one is not believed
    created_ns: int = 0
    password_set_ns: int | None = None  # of a local account; None: it has no password yet
    logon_count: int = 0  # how often it was let into a machine, whatever the guest made of it
    last_logon_ns: int | None = None


class UserVerifierRecord(Record):
    """Owner: `engine`. Exists exactly while its user has a password here."""

    TABLE: ClassVar[str] = "user_verifiers"
    KEY: ClassVar[str] = "name"

    name: str
    verifier: str


# Tables that no question of a client may read.
HIDDEN_TABLES = frozenset({UserVerifierRecord.TABLE})
USER_RECORDS: tuple[type[Record], ...] = (UserRecord, UserVerifierRecord)
