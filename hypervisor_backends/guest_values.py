"""What of a guest's words is taken over: texts cleaned and cut, lists cut, numbers within their bounds.

And how many were not taken as they were.

Knows no message. Every method takes any JSON value at all, and answers None or less where the value is not of the kind
that is asked for; nothing here raises.
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


class Values:
    """Reads the values of one message, and counts those that are not what was asked for.

    What is not there (or null) is None and not counted. What is of another kind or beyond belief is None and counted; a
    text or list that is too long is cut and counted. `listed` texts together have `GUEST_LIST_CHARS_MAX` characters, in
    whatever list they are; past it the rest is left out.
    """

    def __init__(self) -> None:
        self.refused_count = 0
        self._chars_left = GUEST_LIST_CHARS_MAX

    def text(self, value: object) -> str | None:
        if not isinstance(value, str):
            self.refuse(value)
            return None
        self.refused_count += len(value) > GUEST_TEXT_CHARS_MAX
        return clean(value, GUEST_TEXT_CHARS_MAX)

    def number(self, value: object, highest: int) -> int | None:
        """Also of a text, as oVirt's agent writes some."""
        told = value
        if isinstance(told, str) and len(told) <= 20 and told.strip().isdecimal():
            told = int(told)
        # NaN is in no range.
        if isinstance(told, bool) or not isinstance(told, int | float) or not 0 <= told <= highest:
            self.refuse(value)
            return None
        return int(told)

    def offset(self, value: object, highest: int) -> int | None:
        """A whole number that may be negative, no further from 0 than `highest`."""
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > highest:
            self.refuse(value)
            return None
        return value

    def items(self, value: object) -> list[object] | None:
        """None: it is no list, and tells nothing. An empty one tells that there are none."""
        if not isinstance(value, list):
            self.refuse(value)
            return None
        self.refused_count += len(value) > GUEST_LIST_ITEMS_MAX
        return value[:GUEST_LIST_ITEMS_MAX]

    def mappings(self, value: object) -> list[Mapping[str, object]]:
        """Those members that are objects."""
        members = self.items(value) or ()
        found: list[Mapping[str, object]] = [one for one in members if isinstance(one, dict)]
        self.refused_count += len(members) - len(found)
        return found

    def listed(self, value: object) -> str | None:
        taken = self.text(value)
        if taken is None or len(taken) > self._chars_left:
            self.refused_count += taken is not None
            return None
        self._chars_left -= len(taken)
        return taken

    def all(self, value: object) -> tuple[str, ...]:
        return tuple(one for one in map(self.listed, self.items(value) or ()) if one is not None)

    def addresses(self, value: object) -> tuple[str, ...]:
        told = self.all(value)
        found = tuple(one for one in told if is_address(one))
        self.refused_count += len(told) - len(found)
        return found

    def at_most(self, value: int, highest: int) -> int:
        """Clipped, and counted."""
        self.refused_count += value > highest
        return min(value, highest)

    def refuse(self, value: object) -> None:
        """Count it, if it is anything."""
        self.refused_count += value is not None


def known(told: Mapping[str, object]) -> Told:
    return {name: value for name, value in told.items() if value is not None}


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
