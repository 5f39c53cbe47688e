"""Every bound of the history store, with the relations between them asserted."""

from __future__ import annotations

NS_PER_S = 1_000_000_000

# Rows of one of DuckDB's row groups. When a kind has so many, reports that fill row groups exactly are looked for, and
# committed; where there are none, again after so many more rows. So many reports before and after are picked from.
ROW_GROUP_ROWS = 122_880
FILL_AGAIN_ROWS = 4_096
FILL_WINDOW_REPORTS = 64

# Buffered sample rows that start a commit of all: of so many kinds that none has a row group's worth, or none that
# adds up to one. They take about 80 MB of memory, at 155 bytes a row.
SAMPLES_PER_COMMIT = 500_000

# Sample rows held while the disk refuses them; the oldest batches go first, and are counted.
SAMPLES_BUFFERED_MAX = 1_000_000

# One report: more VMs than oVirt ever ran on a host, and a stop for a length that lies.
ROWS_PER_BATCH_MAX = 10_000

# Rows of events, configuration, guest facts and operations. Together the first number starts a commit; past
# the second in one table, events are left to be sent again and the others are dropped and counted.
ROWS_PER_COMMIT = 2_000
ROWS_BUFFERED_MAX = 100_000

# Hosts with a clock that is far off, between two looks; those beyond are one.
CLOCKS_NOTED_MAX = 10_000

# Reports may overtake each other by this many of the same host and still be counted, once.
REPORT_WINDOW = 64

# Distinct texts (statuses, addresses, user names). Guests choose some of them, so there is an end to it; past
# it a new text is stored as NULL and counted. Above half, `maintain` erases those that no sample names.
TEXTS_MAX = 1_000_000
TEXT_CHARS_MAX = 255

# oVirt's DWH_TABLES_KEEP_SAMPLES is 24 hours; events age out after 30 days (EventAgingThreshold).
SAMPLES_KEPT_S = 24 * 3600
EVENTS_KEPT_S = 30 * 24 * 3600
OPERATIONS_KEPT_S = 60 * 24 * 3600

# `maintain` folds the log into the file once it is this long. Folding writes every row group anew that is not full, so
# that doing it at each pass costs more than storing the samples. After a crash the log is read again, 128 MiB in 0.6 s.
LOG_FOLDED_BYTES = 512 * 2**20

# One question: rows in the answer and seconds of work.
QUERY_ROWS_MAX = 1_000_000
QUERY_TIMEOUT_S = 60.0

# How often what questions hold is looked at: in this time one takes some hundred megabytes more.
MEMORY_LOOK_S = 0.2

# The writer waits so long for questions that it has told to end: DuckDB sees an interrupt within milliseconds.
QUERY_END_S = 5.0

assert ROWS_PER_BATCH_MAX <= ROW_GROUP_ROWS <= SAMPLES_PER_COMMIT <= SAMPLES_BUFFERED_MAX
assert ROWS_PER_COMMIT <= ROWS_BUFFERED_MAX
assert 1 < REPORT_WINDOW <= 64  # the window is one mask of 64 bits

# Of oVirt's data warehouse: hourly rows 60 days, daily rows 5 years (of 365 days).
HOURLY_KEPT_S = 60 * 24 * 3600
DAILY_KEPT_S = 5 * 365 * 24 * 3600

# What a sample says holds until the next of the same object, and no longer than this: three of oVirt's sampling
# periods. After it, the status is unknown, and no second is counted.
SAMPLE_HOLDS_S = 180

# An hour is rolled up this long after its end; a report that comes later has its hour rolled up again.
ROLLUP_GRACE_S = 120

# One pass of `maintain`: hours and days of one kind rolled up, hours of samples erased, days moved to Parquet.
ROLLUPS_PER_PASS = 60
ERASED_HOURS_PER_PASS = 6
ARCHIVED_DAYS_PER_PASS = 10

# What is kept is told by time, and a computer's clock may start wrong. The time that erasing goes by follows the clock
# at most so many times faster than time passes: a clock ten years ahead costs a day in the hour until it is noticed,
# and a file that lay still for a month is up to date a day later.
ERASING_PACE_MAX = 24

# Hourly rows stay in the file for this long, and then move to Parquet beside it.
HOURLY_IN_FILE_S = 7 * 24 * 3600

assert SAMPLE_HOLDS_S < 3600  # so that an hour needs samples of the hour before it and of no other
assert SAMPLES_KEPT_S + 3600 < HOURLY_IN_FILE_S < HOURLY_KEPT_S < DAILY_KEPT_S
