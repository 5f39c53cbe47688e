"""What of a guest's words is taken over: texts cleaned and cut, lists cut, numbers within their bounds.

Knows no message. Every function takes any JSON value at all, and answers None or less where the value is not of the
kind that is asked for; nothing here raises.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from guest_agent.protocol import clean
from hypervisor_backends.measurements import GuestNic
from olvm.model.hardware import is_ip_address
from olvm.model.limits import GUEST_LIST_CHARS_MAX, GUEST_LIST_ITEMS_MAX, GUEST_TEXT_CHARS_MAX

Told = dict[str, Any]  # facts by the name of their field in `GuestFacts`
KIB_MAX = 64 * 1024**3  # 64 TiB: the largest machine
BYTES_MAX = 2**62
CPUS_MAX = 10_000


def text(value: object) -> str | None:
    return clean(value, GUEST_TEXT_CHARS_MAX) if isinstance(value, str) else None


def number(value: object, highest: int) -> int | None:
    """Also of a text, as oVirt's agent writes some; None when it is none, or beyond belief."""
    if isinstance(value, str) and len(value) <= 20 and value.strip().isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= highest else None  # what is no number at all is in no range


def offset(value: object, highest: int) -> int | None:
    """A whole number that may be negative, no further from 0 than `highest`."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if abs(value) <= highest else None


def items(value: object) -> list[object] | None:
    """None: it is no list, and tells nothing. An empty one tells that there are none."""
    return value[:GUEST_LIST_ITEMS_MAX] if isinstance(value, list) else None


def mappings(value: object) -> list[Mapping[str, object]]:
    """Those members that are objects."""
    return [one for one in items(value) or () if isinstance(one, dict)]


def known(told: Mapping[str, object]) -> Told:
    return {name: value for name, value in told.items() if value is not None}


class Texts:
    """The texts of one message: past `GUEST_LIST_CHARS_MAX` the rest is left out, whatever list it is in."""

    def __init__(self) -> None:
        self._chars_left = GUEST_LIST_CHARS_MAX

    def text(self, value: object) -> str | None:
        taken = text(value)
        if taken is None or len(taken) > self._chars_left:
            return None
        self._chars_left -= len(taken)
        return taken

    def all(self, value: object) -> tuple[str, ...]:
        return tuple(one for one in map(self.text, items(value) or ()) if one is not None)

    def addresses(self, value: object) -> tuple[str, ...]:
        return tuple(one for one in self.all(value) if is_address(one))


def is_address(text: str) -> bool:
    """Without a zone: what stands behind a % may be any text."""
    return "%" not in text and is_ip_address(text)


def addresses_of(cards: list[GuestNic]) -> tuple[str, ...]:
    """Where the guest can be reached: IPv4 first, none of loopback or of the link alone, each once."""
    return tuple(
        dict.fromkeys(
            [ip for card in cards for ip in card.inet if _is_reachable(ip)]
            + [ip for card in cards for ip in card.inet6 if _is_reachable(ip)]
        )
    )


def _is_reachable(ip: str) -> bool:
    address = ipaddress.ip_address(ip)
    return not (address.is_loopback or address.is_link_local or address.is_unspecified)
