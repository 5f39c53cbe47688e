"""Lines between a guest and its host: whatever a line is, it costs no more than itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guest_agent import protocol as p


def test_encode_any_text_is_one_line_that_decodes_to_the_same() -> None:
    line = p.encode("echo", {"text": "a\nb\u2028\ud800é", "n": 1})
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert p.LineDecoder().feed(line) == [("echo", {"text": "a\nb\u2028\ud800é", "n": 1})]


@given(st.lists(st.binary(max_size=40)), st.integers(min_value=1, max_value=7))
def test_decoder_fed_anything_still_understands_the_next_line(junk: list[bytes], step: int) -> None:
    decoder = p.LineDecoder(line_bytes_max=64)
    data = b"\n".join(junk) + b"\n" + p.encode("refresh", {"apiVersion": 3})
    found = [one for at in range(0, len(data), step) for one in decoder.feed(data[at : at + step])]
    assert found[-1] == ("refresh", {"apiVersion": 3})


@pytest.mark.parametrize(
    "line",
    [b"{", b"[]", b"3", b"{}", b'{"__name__":3}', b"\xff\xfe", b"[" * 5000, b'{"a":' * 3000, b"9" * 5000],
    ids=[
        "half",
        "list",
        "number",
        "nameless",
        "number-name",
        "no-utf8",
        "deep-list",
        "deep-object",
        "long-number",
    ],
)
def test_decoder_line_that_is_no_message_is_counted_and_costs_itself_alone(line: bytes) -> None:
    decoder = p.LineDecoder()
    assert decoder.feed(line + b"\n" + p.encode("echo")) == [("echo", {})]
    assert decoder.discarded == 1


@pytest.mark.parametrize("step", [100, 4096, 3_000_000])
def test_decoder_line_over_a_mebibyte_is_discarded_up_to_its_end(step: int) -> None:
    decoder = p.LineDecoder()
    data = b'{"__name__":"echo","x":"' + b"x" * (p.LINE_BYTES_MAX + 1) + b'"}\n' + p.encode("echo")
    found = [one for at in range(0, len(data), step) for one in decoder.feed(data[at : at + step])]
    assert found == [("echo", {})]
    assert decoder.discarded == 1


def test_decoder_empty_lines_are_nothing() -> None:
    decoder = p.LineDecoder()
    assert decoder.feed(b"\n \n\r\n") == []
    assert decoder.discarded == 0


def test_clean_text_with_what_xml_forbids_has_replacement_characters() -> None:
    assert p.clean("a\x00b\x1b[2J\x7f\ud800\ufffe") == "a\ufffdb\ufffd[2J\ufffd\ufffd\ufffd"
    assert p.clean("tab\tline\nreturn\r é €") == "tab\tline\nreturn\r é €"
    assert p.cleaned({"a\x01": ["b\x02", 3, {"c": "\x03"}]}) == {"a\ufffd": ["b\ufffd", 3, {"c": "\ufffd"}]}


@pytest.mark.parametrize(
    ("mine", "theirs", "both"),
    [(3, 3, 3), (3, 1, 1), (1, 3, 1), (3, 0, 0), (3, -1, 0), (9, 9, 3), (3, 10**30, 3)],
)
def test_effective_version_is_the_lower_one_within_bounds(mine: int, theirs: int, both: int) -> None:
    assert p.effective_version(mine, theirs) == both


def test_every_message_line_is_ascii_json() -> None:
    for name in [*p.FROM_GUEST, *p.TO_GUEST, *p.TO_OLVM_GUEST]:
        assert json.loads(p.encode(name).decode("ascii")) == {p.NAME: name}
