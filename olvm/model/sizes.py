"""How people write amounts of memory and of time, and how we write them back.

`K`, `M`, `G`, `T` and `P` alone are powers of 1024, as in virsh and qemu-img; `KB`, `MB`, … are powers of
1000 and `KiB`, `MiB`, … powers of 1024. A size is a whole number of bytes: what is left of a fraction is
dropped.
"""

from __future__ import annotations

import re
from fractions import Fraction

from olvm.model.errors import BadInput

_PREFIXES = "KMGTP"
_BYTES_BY_UNIT: dict[str, int] = {
    "": 1,
    "B": 1,
    **{prefix: 1024**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(_PREFIXES, 1)},
    **{f"{prefix}IB": 1024**power for power, prefix in enumerate(_PREFIXES, 1)},
}
# At most 20 digits on either side of the point: anything that fits 64 bits, and nothing that costs time to
# read.
_AMOUNT = r"([0-9]{1,20}(?:\.[0-9]{1,20})?)"
_SIZE = re.compile(rf"{_AMOUNT} ?([A-Za-z]{{0,3}})")
_SIZE_HELP = "write bytes as a whole number, or a unit as in 512MiB, 8GiB or 1.5T"

_SECONDS_BY_UNIT: dict[str, Fraction] = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}
_PART = re.compile(rf"{_AMOUNT}(ms|s|m|h|d)")
_DURATION = re.compile(r"(?:[0-9]{1,20}(?:\.[0-9]{1,20})?(?:ms|s|m|h|d))+")
_DURATION_HELP = "write seconds as a number, or units as in 500ms, 30s, 5m, 1h30m or 2d"
DURATION_TEXT_CHARS_MAX = 100


def parse_size(value: str | int) -> int:
    """Bytes, at least 0, from a number of bytes or from text such as "256GiB".

    Raises:
        BadInput: not a size, or negative.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise BadInput(f"size {value} is negative; {_SIZE_HELP}")
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise BadInput(f"{_shown(value)} is not a size; {_SIZE_HELP}")
    number, unit = match.groups()
    factor = _BYTES_BY_UNIT.get(unit.upper())
    if factor is None:
        raise BadInput(f"{_shown(value)} has the unknown unit {unit}; {_SIZE_HELP}")
    return int(Fraction(number) * factor)


def format_size(size_bytes: int) -> str:
    """The size in the largest binary unit that it fills, such as "1.5GiB"; `parse_size` reads it back.

    Two decimals at most, so a size that needs more comes back rounded by up to half a percent.
    """
    assert size_bytes >= 0, f"{size_bytes} bytes"
    for power in range(len(_PREFIXES), 0, -1):
        if size_bytes >= 1024**power:
            hundredths = (size_bytes * 100 + 1024**power // 2) // 1024**power
            whole, rest = divmod(hundredths, 100)
            decimals = f".{rest:02}".rstrip("0") if rest else ""
            return f"{whole}{decimals}{_PREFIXES[power - 1]}iB"
    return f"{size_bytes}B"


def parse_duration(value: str | int | float) -> float:
    """Seconds, at least 0, from a number of seconds or from text such as "30s", "5m" or "1h30m".

    Raises:
        BadInput: not a duration, negative or not finite.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not 0 <= value < float("inf"):
            raise BadInput(f"duration {value} is not a number of seconds from 0 on; {_DURATION_HELP}")
        return float(value)
    text = value.strip() if isinstance(value, str) else ""
    if len(text) <= DURATION_TEXT_CHARS_MAX:
        if re.fullmatch(_AMOUNT, text):
            return float(Fraction(text))
        if _DURATION.fullmatch(text):
            parts = _PART.findall(text)
            return float(sum(Fraction(number) * _SECONDS_BY_UNIT[unit] for number, unit in parts))
    raise BadInput(f"{_shown(value)} is not a duration; {_DURATION_HELP}")


def _shown(value: object) -> str:
    """The value as the message shows it: quoted, one line, and not longer than a person reads."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def scalar(text: str) -> str | int | bool:
    """What a value on a command line means: true and false, whole numbers, sizes as 10GiB in bytes, else text."""
    if text in ("true", "false"):
        return text == "true"
    if text.isdecimal():
        return int(text)
    try:
        return parse_size(text)
    except BadInput:
        return text
