"""Every bound of the system, with the relations between them asserted.

A queue, log, retry or message that could grow has its ceiling here and nowhere else.
"""

from __future__ import annotations

NS_PER_S = 1_000_000_000

# One group commit holds at most this many turns: large enough that the fixed cost of a transaction (about 3 ms)
# vanishes per turn, small enough that the first waiter of a full batch is answered within about 50 ms.
TURNS_PER_COMMIT_MAX = 2_000

# A frame between two silos carries at most this many messages, so that no frame passes Ray's inline limits badly.
MESSAGES_PER_FRAME_MAX = 2_000

# Unacknowledged messages are sent again after this long; a restarted silo needs about 2 s to come back.
RESEND_AFTER_S = 1.0

# Finished operations that the engine keeps at hand: the window in which a retried client request is recognised.
OPERATIONS_REMEMBERED_MAX = 20_000

# Finished operations and events that stay in engine.duckdb; older ones are erased in batches.
OPERATIONS_KEPT_MAX = 1_000_000
EVENTS_KEPT_MAX = 1_000_000

# One request from a client: a frame on the socket.
CLIENT_FRAME_BYTES_MAX = 16 * 1024 * 1024
CLIENT_REQUESTS_IN_FLIGHT_MAX = 100_000

# Sizes that a request may name. VCPUS_MAX is oVirt 4.6's MaxNumOfVmCpus; memory is its 64-bit limit at 4.8.
VCPUS_MAX = 710
VM_MEMORY_BYTES_MIN = 1024 * 1024
VM_MEMORY_BYTES_MAX = 64 * 1024**4
HOST_CPUS_MAX = 4096
HOST_MEMORY_BYTES_MAX = 1024 * 1024**4

# Rows that one SQL answer may hold.
SQL_ROWS_MAX = 1_000_000

# An agent remembers the highest epoch of this many machines that it no longer runs.
EPOCHS_REMEMBERED_MAX = 100_000

assert TURNS_PER_COMMIT_MAX >= 1
assert OPERATIONS_REMEMBERED_MAX <= OPERATIONS_KEPT_MAX
assert VM_MEMORY_BYTES_MIN < VM_MEMORY_BYTES_MAX <= HOST_MEMORY_BYTES_MAX
