"""Words that a command may carry, checked before it leaves: what a stranger to the protocol says breaks the line."""

from __future__ import annotations

from typing import TypeVar

from olvm.model.errors import BadInput
from olvm.model.search import nearest

W = TypeVar("W", bound=str)


def checked_word(what: str, word: str, known: tuple[W, ...]) -> W:
    """`word` as one of `known`; `BadInput` lists them."""
    for one in known:
        if one == word:
            return one
    choices = ", ".join(one for one in known if one)
    raise BadInput(f"{what} {word!r} is not known{nearest(word, list(known))}; choose from {choices}")
