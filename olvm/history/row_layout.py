"""How the numbers of one row of a report lie in its bytes.

A row is packed: its columns one after another, little-endian, without gaps; 32-bit floats ("f") and 64-bit integers
("q"). So the rows of all reports of one shape are one array of records, which needs no work for a row or a report. A
shape says which columns there are, by name: agents of several releases, and machines with and without an agent, send
different ones.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Final, NamedTuple

SIZE_BY_CODE: Final = {"f": 4, "q": 8}

# Shapes known at one time: those of a few releases of agents. A peer that makes them up costs itself time, not memory.
SHAPES_MAX: Final = 1024
COLUMNS_MAX: Final = 256


class RowLayout(NamedTuple):
    """Columns in the order of the bytes. `columns` are (name, code), `packer` packs one row of their values."""

    columns: tuple[tuple[str, str], ...]
    packer: struct.Struct

    @property
    def record(self) -> list[tuple[str, str]]:
        """What numpy calls this: a list of fields, to make a dtype of."""
        return [(name, "<f4" if code == "f" else "<i8") for name, code in self.columns]

    def column(self, name: str, data: bytes) -> tuple[float | int, ...] | None:
        """The values of one column of these rows; None if it was not sent."""
        position = next((at for at, (known, _) in enumerate(self.columns) if known == name), None)
        return None if position is None else tuple([row[position] for row in self.packer.iter_unpack(data)])


@lru_cache(SHAPES_MAX)
def shape_of(columns: tuple[tuple[str, str], ...]) -> str:
    """The text that `layout_of` reads."""
    return " ".join(f"{name}:{code}" for name, code in columns)


@lru_cache(SHAPES_MAX)
def layout_of(shape: str) -> RowLayout:
    """Raises `ValueError` for a text that is no shape."""
    columns = []
    for word in shape.split():
        name, _, code = word.partition(":")
        if code not in SIZE_BY_CODE or not name:
            raise ValueError(f"{word[:80]!r} is no column; it has to be NAME:f or NAME:q")
        columns.append((name, code))
    if len(columns) > COLUMNS_MAX or len({name for name, _ in columns}) < len(columns):
        raise ValueError(f"{len(columns)} columns are more than {COLUMNS_MAX}, or one is named twice")
    return RowLayout(tuple(columns), struct.Struct("<" + "".join(code for _, code in columns)))
