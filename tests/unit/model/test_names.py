from __future__ import annotations

import uuid

import pytest

from olvm.model.errors import BadInput
from olvm.model.names import NAME_CHARS_MAX, check_name


@pytest.mark.parametrize("name", ["a", "web-1", "kvm01.lab", "_x", "7", "A" * NAME_CHARS_MAX, "deadbeef"])
def test_name_of_letters_digits_and_marks_is_accepted(name: str) -> None:
    check_name("vm", name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "is empty"),
        ("A" * (NAME_CHARS_MAX + 1), "has 256 characters"),
        ("web 1", "contains ' '"),
        ("web/1", "contains '/'"),
        ("web@1", "contains '@'"),
        ("wéb", "contains 'é'"),
        ("web1\n", r"contains '\\n'"),
        ("web*", r"contains '\*'"),
        ("-rf", "begins with '-'"),
        ("..", r"begins with '\.'"),
        (str(uuid.UUID(int=7)), "looks like an id"),
        (uuid.UUID(int=7).hex.upper(), "looks like an id"),
    ],
)
def test_name_that_could_be_mistaken_is_bad_input(name: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as caught:
        check_name("vm", name)
    assert "vm" in caught.value.message
    assert "\n" not in caught.value.message
