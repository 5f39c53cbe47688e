"""Finds the files of a source and gives their lines to DuckDB, numbered, as they are.

Rules:
1. A line is read as one text and taken apart in SQL, so that every line has its number and none is lost to a CSV
   reader's idea of quotes, types or widths.
2. Bytes are read as latin-1: no byte ends a reading. Formats check that their data are ASCII.
3. Whether a file is compressed is seen by its first bytes, not by its name.
"""

from __future__ import annotations

import gzip
import io
import itertools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from olvm.experiments.imports.bounds import FILES_MAX, HEADER_LINES_MAX, LINE_BYTES_MAX
from olvm.experiments.imports.checking import quoted
from olvm.model.errors import BadInput, NotFound

# Four control characters in a row are in no text: a line is always one column.
_NO_DELIMITER = "\x01\x02\x03\x04"
_PARQUET = b"PAR1"
_GZIP = b"\x1f\x8b"
_ARCHIVES = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\xfd7zX": "compressed with xz",
}
_BYTE_ORDER_MARK = "\xef\xbb\xbf"


def the_file(path: Path, format_name: str, names: Iterable[str] = ()) -> Path:
    """The file itself, or in a folder the first of `names` that is there."""
    if not path.exists():
        raise NotFound(f"cannot import {path} as {format_name}: there is no such file")
    if path.is_file():
        return path
    for name in names:
        if (path / name).is_file():
            return path / name
    wanted = " or ".join(names)
    raise BadInput(
        f"cannot import {path} as {format_name}: it is a folder"
        + (f" without {wanted}; give the file" if wanted else "; give a file")
    )


def files_under(path: Path, format_name: str, suffixes: tuple[str, ...]) -> list[Path]:
    """All files below a folder whose names end so, by name; hidden ones are left out."""
    found = [
        file
        for file in itertools.islice(sorted(path.rglob("*")), FILES_MAX + 1)
        if file.is_file() and file.name.endswith(suffixes) and not file.name.startswith(".")
    ]
    if not found:
        raise BadInput(
            f"cannot import {path} as {format_name}: there is no file {' or '.join(f'*{s}' for s in suffixes)} in it"
        )
    if len(found) > FILES_MAX:
        raise BadInput(f"cannot import {path} as {format_name}: it has more than {FILES_MAX} files")
    return found


def starts_with(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def is_parquet(path: Path) -> bool:
    return starts_with(path, len(_PARQUET)) == _PARQUET


def text_lines(path: Path) -> Iterator[str]:
    """Lines as Python reads them, one by one; for headers only.

    Raises:
        BadInput: the gzip stream is broken, or it is compressed otherwise.
    """
    if packed := _ARCHIVES.get(starts_with(path, 4)):
        raise BadInput(f"cannot read {path}: it is {packed}; unpack it first")
    opening = gzip.open if starts_with(path, 2) == _GZIP else open
    try:
        with opening(path, "rt", encoding="latin-1", newline=None) as text:
            while line := text.readline(LINE_BYTES_MAX):
                yield line.rstrip("\n")
    except (EOFError, gzip.BadGzipFile) as error:
        raise BadInput(f"cannot read {path}: the compressed file is broken or cut off ({error})") from error


def header_lines(path: Path, comment: str = "") -> list[str]:
    """The comments that a file begins with and the first line after them; none of a file that is empty."""
    lines: list[str] = []
    for line in itertools.islice(text_lines(path), HEADER_LINES_MAX):
        lines.append(line)
        if not (comment and (line.startswith(comment) or not line.strip())):
            break
    return lines


def lines_of(path: Path) -> str:
    """An SQL source with the columns `line` (from 1) and `text` (NULL for an empty line), in the file's order."""
    compression = "gzip" if starts_with(path, 2) == _GZIP else "none"
    return (
        f"(select row_number() over () as line, text from read_csv({file_literal(path)}, "
        f"columns = {{'text': 'VARCHAR'}}, header = false, auto_detect = false, delim = '{_NO_DELIMITER}', "
        f"quote = '', escape = '', strict_mode = false, compression = '{compression}', encoding = 'latin-1', "
        f"max_line_size = {LINE_BYTES_MAX}))"
    )


def file_literal(path: Path) -> str:
    """DuckDB takes a path for a pattern: what is special in patterns is put into brackets."""
    return quoted(re.sub(r"([*?[])", r"[\1]", str(path)))


def ends_without_newline(path: Path) -> bool:
    """Whether the last line may have been cut off. A compressed file would not open if it were."""
    if path.stat().st_size == 0 or starts_with(path, 2) == _GZIP:
        return False
    with path.open("rb") as file:
        file.seek(-1, io.SEEK_END)
        return file.read(1) not in b"\r\n"


def header_positions(
    path: Path,
    format_name: str,
    delimiter: str,
    wanted: dict[str, tuple[str, ...]],
    optional: Iterable[str] = (),
) -> tuple[dict[str, int], int]:
    """Where the columns of a file with a header are, from 1, and how many columns it has.

    Args:
        wanted: for each column of ours, the names that it may have in the header, in lower case.
        optional: those of ours that may be missing.

    Raises:
        BadInput: the file is empty, or the header lacks a column or is delimited otherwise.
    """
    lines = header_lines(path)
    if not lines or not lines[0].strip():
        raise BadInput(f"cannot import {path} as {format_name}: it is empty where a header belongs")
    header = lines[0].removeprefix(_BYTE_ORDER_MARK)
    names = [name.strip().strip('"').lower() for name in header.split(delimiter)]
    positions: dict[str, int] = {}
    for column, aliases in wanted.items():
        at = next((names.index(alias) + 1 for alias in aliases if alias in names), 0)
        if at:
            positions[column] = at
        elif column not in optional:
            raise BadInput(
                f"cannot import {path} as {format_name}: line 1 has no column {aliases[0]!r}"
                f"{_other_delimiter(lines[0], delimiter)}; it has {', '.join(names)[:200]}"
            )
    return positions, len(names)


def _other_delimiter(line: str, delimiter: str) -> str:
    other = next(
        (sign for sign in (",", ";", "\t") if sign != delimiter and line.count(sign) > line.count(delimiter)),
        "",
    )
    return (
        f" (columns end with {delimiter!r} in this format, and here they seem to end with {other!r})"
        if other
        else ""
    )
