"""What a history store has come to since it was opened, in numbers."""

from __future__ import annotations

import msgspec


class HistoryCounters(msgspec.Struct, kw_only=True):
    """Since the store was opened."""

    sample_count: int = 0  # rows committed
    repeated_report_count: int = 0
    late_report_count: int = 0
    expired_report_count: int = 0  # older than what is kept
    dropped_sample_count: int = 0  # rows lost because the disk refused them for too long
    dropped_row_count: int = 0  # likewise, of configuration, guest facts and operations
    refused_text_count: int = 0  # texts stored as NULL because the dictionary was full
    commit_count: int = 0
    failed_commit_count: int = 0
    clipped_value_count: int = 0  # beyond what is possible, stored as the nearest that is
    rolled_up_count: int = 0  # hours and days, of one kind each
    missing_file_count: int = 0  # Parquet files that history lists and that are not there
    distrusted_clock_count: int = (
        0  # passes of `maintain` whose clock was ahead of the time that erasing goes by
    )
