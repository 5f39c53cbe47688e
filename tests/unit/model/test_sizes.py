from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olvm.model.errors import BadInput
from olvm.model.sizes import format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        (0, 0),
        (4096, 4096),
        ("4096", 4096),
        ("17B", 17),
        ("256GiB", 256 * 1024**3),
        ("256gib", 256 * 1024**3),
        (" 8 GiB ", 8 * 1024**3),
        ("1K", 1024),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("2M", 2 * 1024**2),
        ("2MB", 2_000_000),
        ("3G", 3 * 1024**3),
        ("3GB", 3 * 10**9),
        ("1.5T", 1536 * 1024**3),
        ("1TB", 10**12),
        ("64TiB", 64 * 1024**4),
        ("0.1KiB", 102),
    ],
)
def test_size_in_any_unit_is_its_bytes(text: str | int, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "bad", ["", "GiB", "-1", -1, "8 XiB", "1e9", "8GiBs", "1,5G", "٣", "1.", True, 1.5, None]
)
def test_size_that_is_none_is_bad_input_with_help(bad: object) -> None:
    with pytest.raises(BadInput, match="8GiB"):
        parse_size(bad)  # type: ignore[arg-type]


def test_size_that_is_huge_text_is_refused_in_a_short_message() -> None:
    with pytest.raises(BadInput) as caught:
        parse_size("9" * 100_000)
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1KiB"),
        (1536, "1.5KiB"),
        (8 * 1024**3, "8GiB"),
        (64 * 1024**4, "64TiB"),
    ],
)
def test_size_is_written_in_its_largest_unit(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@given(st.integers(min_value=0, max_value=2**62))
def test_size_written_and_read_is_within_half_a_percent(size_bytes: int) -> None:
    assert abs(parse_size(format_size(size_bytes)) - size_bytes) <= size_bytes * 0.005 + 1


@given(st.integers(min_value=0, max_value=1023), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB", "PiB"]))
def test_size_of_whole_units_is_written_and_read_exactly(amount: int, unit: str) -> None:
    size_bytes = parse_size(f"{amount}{unit}")
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("1h30m", 5400.0),
        ("2d", 172_800.0),
        ("500ms", 0.5),
        ("1.5m", 90.0),
        ("45", 45.0),
        (45, 45.0),
        (0.25, 0.25),
    ],
)
def test_duration_in_any_unit_is_its_seconds(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "bad", ["", "s", "-1s", "5 minutes", "1h 30m", -1, float("nan"), float("inf"), False, None]
)
def test_duration_that_is_none_is_bad_input_with_help(bad: object) -> None:
    with pytest.raises(BadInput, match="1h30m"):
        parse_duration(bad)  # type: ignore[arg-type]
