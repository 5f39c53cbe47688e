"""The window that counts each report once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from olvm.history.bounds import REPORT_WINDOW
from olvm.history.reports import ReportWindows


def _judged(*reports: tuple[int, int]) -> list[str]:
    windows = ReportWindows()
    return [windows.judge("vm", "kvm01", epoch, seq) for epoch, seq in reports]


def test_report_repeated_is_counted_once() -> None:
    assert _judged((1, 1), (1, 1)) == ["accepted", "repeated"]


def test_report_overtaken_is_counted_once() -> None:
    assert _judged((1, 3), (1, 1), (1, 1), (1, 3)) == ["accepted", "accepted", "repeated", "repeated"]


def test_report_behind_the_window_is_late() -> None:
    assert _judged((1, REPORT_WINDOW + 1), (1, 2), (1, 1)) == ["accepted", "accepted", "late"]


def test_report_of_an_earlier_start_of_the_agent_is_late() -> None:
    assert _judged((1, 5), (2, 1), (1, 6)) == ["accepted", "accepted", "late"]


def test_hosts_and_kinds_have_windows_of_their_own() -> None:
    windows = ReportWindows()
    names = [("vm", "a"), ("vm", "b"), ("host", "a")]
    assert [windows.judge(kind, host, 1, 1) for kind, host in names] == ["accepted"] * 3


@given(st.lists(st.tuples(st.integers(1, 2), st.integers(1, 200)), max_size=60))
def test_reports_in_any_order_are_counted_as_a_plain_set_would(reports: list[tuple[int, int]]) -> None:
    windows = ReportWindows()
    seen: set[tuple[int, int]] = set()
    for epoch, seq in reports:
        newest = max(seen, default=(0, 0))
        if epoch < newest[0] or (epoch == newest[0] and seq <= newest[1] - REPORT_WINDOW):
            expected = "late"
        else:
            expected = "repeated" if (epoch, seq) in seen else "accepted"
        assert windows.judge("vm", "kvm01", epoch, seq) == expected
        seen |= {(epoch, seq)} if expected == "accepted" else set()
