"""A shape is what the schema looks at beyond values: elements, their order, the names of their attributes."""

from __future__ import annotations

import pytest

from hypervisor_backends.domain_shapes import SHAPES_MAX, ValidatedShapes, shape_of

ONE = '<domain type="kvm"><name>a</name><cpu mode="host"><topology cores="1"/></cpu><on/></domain>'


def test_values_are_no_part_of_it() -> None:
    other = (
        '<domain type="qemu"> <name>b c</name><cpu mode="max"><topology cores="8"/></cpu><on>x</on></domain>'
    )
    assert shape_of(ONE) == shape_of(other)


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ("<on/>", '<on way="x"/>'),
        ("<on/>", "<on/><on/>"),
        ("<on/>", "<off/>"),
        ("<on/>", ""),
        ("<on/></domain>", "</domain>"),
        ("</cpu><on/>", "<on/></cpu>"),
        ("<name>a</name>", '<name xmlns="urn:x">a</name>'),
        ('<cpu mode="host"><topology cores="1"/></cpu>', '<topology cores="1"/><cpu mode="host"></cpu>'),
    ],
)
def test_everything_else_is(was: str, is_now: str) -> None:
    assert was in ONE
    assert shape_of(ONE.replace(was, is_now)) != shape_of(ONE)


def test_order_of_attributes_is_not() -> None:
    assert shape_of('<a b="1" c="2"/>') == shape_of('<a c="2" b="1"/>')


def test_shape_is_known_of_the_version_that_saw_it_and_the_oldest_are_forgotten() -> None:
    known = ValidatedShapes()
    known.add(9, 1)
    assert known.has(9, 1)
    assert not known.has(10, 1)
    for shape in range(2, SHAPES_MAX + 2):
        known.add(9, shape)
    assert not known.has(9, 1)
    assert known.has(9, SHAPES_MAX + 1)
