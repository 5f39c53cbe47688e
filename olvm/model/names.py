"""Which names an object may have.

Rule: a name is never mistaken for something else. Not for an id (no UUIDs), a path or an address (no `/`,
`@`, leading dot), an option of the command line (no leading dash) or two words.

Source: oVirt's names of machines are letters, digits, `_`, `-` and `.`, at most 255 of them.
"""

from __future__ import annotations

import re

from olvm.model.errors import BadInput

NAME_CHARS_MAX = 255

_ALLOWED = re.compile(r"[A-Za-z0-9_.-]+")
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


def check_name(kind: str, name: str) -> None:
    """Accept `name` for an object of `kind` (the word that the message uses).

    Raises:
        BadInput: says which rule the name breaks and what to do.
    """
    if not name:
        raise BadInput(f"the name of a {kind} is empty; give it 1 to {NAME_CHARS_MAX} characters")
    if len(name) > NAME_CHARS_MAX:
        raise BadInput(
            f"{kind} name {name[:20]!r}... has {len(name)} characters; use at most {NAME_CHARS_MAX}"
        )
    if not _ALLOWED.fullmatch(name):
        wrong = next(char for char in name if not _ALLOWED.fullmatch(char))
        raise BadInput(
            f"{kind} name {name!r} contains {wrong!r}; use only letters A-Z, digits, '_', '-' and '.'"
        )
    if name[0] in ".-":
        raise BadInput(
            f"{kind} name {name!r} begins with {name[0]!r}; begin it with a letter, a digit or '_'"
        )
    if _UUID.fullmatch(name):
        raise BadInput(f"{kind} name {name!r} looks like an id; choose a name that is not a UUID")
