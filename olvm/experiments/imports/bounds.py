"""Every bound of an import. What does not fit in memory is spilled beside the file that is written."""

from __future__ import annotations

# What DuckDB may hold at once, beside the interpreter. Sources are tens of GB: sorting and grouping spill.
IMPORT_MEMORY_BYTES = 512 << 20
IMPORT_THREADS = 2

# Rows that Python hands over at once where it reads itself (SQLite, folders of small files).
ROWS_PER_BATCH = 50_000

# Bad rows that a message and a report name; the others are counted.
BAD_ROWS_NAMED_MAX = 10
TEXT_SHOWN_MAX = 40

# One line of a source. The longest true ones (JSON of Borg with its constraints) have a few kB.
LINE_BYTES_MAX = 4 << 20
HEADER_LINES_MAX = 10_000

# Source files of one import: Bitbrains has 1,750, a Borg cell some thousands.
FILES_MAX = 100_000

# A file of one VM's percentages: 288 numbers of at most three digits, and room for what does not belong there.
PLANETLAB_FILE_BYTES_MAX = 64 << 10
