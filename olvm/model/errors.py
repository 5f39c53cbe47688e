"""The error tree: one class for each thing that a caller does differently about.

    OlvmError                    code            exit code
    ├── BadInput                 bad_input       2   the request can never succeed as it stands
    │   └── BadQuery             bad_query       2   malformed SQL or search expression
    ├── NotFound                 not_found       3
    ├── Conflict                 conflict        4   refused in the present state; the reason says which
    │   ├── DuplicateName        duplicate_name  4
    │   └── NoCapacity           no_capacity     4   no host passed the filters
    ├── Denied                   denied          5
    ├── NotSupportedYet          not_supported   1   a promise of a later release
    ├── WaitTimeout              wait_timeout    6   the operation goes on
    ├── EngineUnreachable        unreachable     7
    ├── OperationFailed          operation_failed 1
    ├── UserPolicyError          user_policy     1   a scheduling policy of the user's own failed; names VM and host
    └── JournalError             journal         1
        ├── JournalLocked        journal_locked  4   another process holds the file
        ├── JournalCorrupt       journal_corrupt 1
        └── JournalUnwritable    journal_unwritable 1  full disk, read-only directory

Every error is one sentence that says what, which object, why, and what to do. Errors cross processes as
`code` + `message` (see `to_wire` and `from_wire`), so no class carries anything that is not text.
"""

from __future__ import annotations

from typing import ClassVar


class OlvmError(Exception):
    """Root of every error that olvm raises on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __reduce__(self) -> tuple[type[OlvmError], tuple[str]]:
        return type(self), (self.message,)

    def to_wire(self) -> tuple[str, str]:
        """The pair that crosses a process boundary."""
        return self.code, self.message


class BadInput(OlvmError):
    code = "bad_input"
    exit_code = 2


class BadQuery(BadInput):
    code = "bad_query"


class NotFound(OlvmError):
    code = "not_found"
    exit_code = 3


class Conflict(OlvmError):
    code = "conflict"
    exit_code = 4


class DuplicateName(Conflict):
    code = "duplicate_name"


class NoCapacity(Conflict):
    code = "no_capacity"


class Denied(OlvmError):
    code = "denied"
    exit_code = 5


class NotSupportedYet(OlvmError):
    code = "not_supported"


class WaitTimeout(OlvmError):
    code = "wait_timeout"
    exit_code = 6


class UserPolicyError(OlvmError):
    code = "user_policy"


class EngineUnreachable(OlvmError):
    code = "unreachable"
    exit_code = 7


class OperationFailed(OlvmError):
    code = "operation_failed"


class JournalError(OlvmError):
    code = "journal"


class JournalLocked(JournalError):
    code = "journal_locked"
    exit_code = 4


class JournalCorrupt(JournalError):
    code = "journal_corrupt"


class JournalUnwritable(JournalError):
    code = "journal_unwritable"


def _tree(root: type[OlvmError]) -> list[type[OlvmError]]:
    return [root, *(leaf for child in root.__subclasses__() for leaf in _tree(child))]


ERROR_BY_CODE: dict[str, type[OlvmError]] = {error.code: error for error in _tree(OlvmError)}


def from_wire(code: str, message: str) -> OlvmError:
    """Rebuild an error from its wire pair; an unknown code (a newer peer) becomes the root class."""
    return ERROR_BY_CODE.get(code, OlvmError)(message)
