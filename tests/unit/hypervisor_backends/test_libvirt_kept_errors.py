"""An error of libvirt's survives a collection that frees an object of libvirt's, wherever the collector comes in."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator

import pytest

libvirt = pytest.importorskip("libvirt", reason="libvirt-python is not installed (`make apt-libvirt`)")

from hypervisor_backends.libvirt_events import start_event_loop  # noqa: E402


@pytest.fixture
def connection() -> Iterator[libvirt.virConnect]:
    start_event_loop()
    connection = libvirt.open("test:///default")
    yield connection
    connection.close()


@pytest.fixture
def set_threshold() -> Iterator[Callable[[int], None]]:
    before = gc.get_threshold()
    yield lambda objects: gc.set_threshold(objects, *before[1:])
    gc.set_threshold(*before)


class Cycle:
    """Nobody but the collector frees it, and the domain with it."""

    def __init__(self, connection: libvirt.virConnect) -> None:
        self.itself = self
        self.domain = connection.lookupByName("test")


def error_of(connection: libvirt.virConnect) -> libvirt.libvirtError:
    with pytest.raises(libvirt.libvirtError) as caught:
        connection.lookupByName("nowhere")
    return caught.value


def test_errors_keep_their_code_wherever_the_collector_comes_in(
    connection: libvirt.virConnect, set_threshold: Callable[[int], None]
) -> None:
    drawn = random.Random(0)
    codes, in_window = set(), 0
    make = libvirt.libvirtError.__init__

    def counted(self: libvirt.libvirtError, default: str) -> None:
        nonlocal in_window
        in_window += libvirt.virGetLastError() is None
        make(self, default)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(libvirt.libvirtError, "__init__", counted)
        for _ in range(3000):
            set_threshold(drawn.randint(3, 60))
            Cycle(connection)
            try:
                connection.lookupByName("nowhere")
            except libvirt.libvirtError as error:
                codes.add((error.get_error_code(), str(error)))
    assert in_window > 0, "the collector never came in between: this test shows nothing"
    assert codes == {(libvirt.VIR_ERR_NO_DOMAIN, error_of(connection).get_error_message())}


def test_error_of_an_earlier_call_is_not_taken_for_a_later_one(connection: libvirt.virConnect) -> None:
    error_of(connection)
    gc.collect()
    connection.lookupByName("test")
    gc.collect()
    assert libvirt.libvirtError("made by hand").get_error_code() is None


def test_an_error_is_taken_once(connection: libvirt.virConnect) -> None:
    Cycle(connection)
    assert libvirt.libvirtmod.virDomainLookupByName(connection._o, "nowhere") is None
    gc.collect()
    assert libvirt.libvirtError("first").get_error_code() == libvirt.VIR_ERR_NO_DOMAIN
    assert libvirt.libvirtError("second").get_error_code() is None
