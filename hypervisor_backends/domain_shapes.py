"""Which shapes of domain XML a libvirt has held against its schema, so that it does that once for each.

A shape is the elements in their order with the names of their attributes, and no value. A value that cannot be is
refused by libvirt's parser; what its schema adds is that nothing stands there which the parser would leave out without
a word. Validation takes 8 to 18 ms of a start.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final
from xml.etree import ElementTree as ET

SHAPES_MAX: Final = 512


def shape_of(xml: str) -> int:
    """The same for two texts that differ in values only."""
    found: list[tuple[str, ...]] = []
    _describe(ET.fromstring(xml), found)  # noqa: S314 - our own, or what libvirt gave back of it
    return hash(tuple(found))


def _describe(element: ET.Element, found: list[tuple[str, ...]]) -> None:
    found.append((element.tag, *sorted(element.attrib)))
    for child in element:
        _describe(child, found)
    found.append(())  # what follows is no child of it


class ValidatedShapes:
    """Of one process, which may know several libvirts. From any thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[int, int], None] = OrderedDict()

    def has(self, version: int, shape: int) -> bool:
        """`version`: of the libvirt that is asked, which may have been upgraded meanwhile."""
        return (version, shape) in self._known

    def add(self, version: int, shape: int) -> None:
        self._known[version, shape] = None
        if len(self._known) > SHAPES_MAX:
            self._known.popitem(last=False)
