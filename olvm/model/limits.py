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

# Messages that wait for a simulated host whose power is off; more come only if nobody notices that it is.
HELD_MESSAGES_MAX = 10_000

# Unacknowledged messages are sent again after this long; a restarted silo needs about 2 s to come back.
RESEND_AFTER_S = 1.0

# Journals that a peer has lost, by which its late frames are known; a disk is not lost more often than this while
# a frame is on its way.
INCARNATIONS_REMEMBERED_MAX = 8

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

# Devices of one machine (RHV 4.0 tests 28 virtio disks), and the size of each document of a cloud-init seed.
DISKS_PER_VM_MAX = 28
NICS_PER_VM_MAX = 28
SEED_BYTES_MAX = 64 * 1024

# Tasks of one machine or host whose end is awaited.
TASKS_PER_OBJECT_MAX = 32
# How old the word that a task is still wanted may be when it begins, by the clock of the host that asked for it.
TASK_WANTED_S_MAX = 5
# No hypervisor works longer on a plug: twice what the libvirt backend gives a call before it says "outcome unknown".
SIZE_TASK_S_MAX = 120

# What one guest may say. The size of a line is VDSM's cap; a line over it is discarded up to its end. The rate is far
# above what any agent needs, and what comes faster waits in the guest.
GUEST_LINE_BYTES_MAX = 1024 * 1024
GUEST_LINES_PER_S_MAX = 100
GUEST_BYTES_PER_S_MAX = 1024 * 1024
GUEST_TEXT_CHARS_MAX = 4_096
GUEST_LIST_ITEMS_MAX = 10_000
GUEST_LIST_CHARS_MAX = 512 * 1024  # of all texts that one message brings
GUEST_OUT_BYTES_MAX = 256 * 1024  # that a guest does not read
GUEST_CALLS_MAX = 64  # questions to one guest that are open
# What a guest may cause beyond its own row: each event is a record for months, each piece of news a sample of its host.
# So many at once, and then one in so many seconds.
GUEST_EVENTS_AT_ONCE_MAX = 20
GUEST_EVENT_PERIOD_S = 10.0
GUEST_NEWS_AT_ONCE_MAX = 10
GUEST_NEWS_PERIOD_S = 15.0

# A password in bytes: PAM's own bound (PAM_MAX_RESP_SIZE). How many are checked at once, each for up to 64 MiB and
# 50 ms here or seconds at PAM, and how many more wait; those that come on top are refused.
PASSWORD_BYTES_MAX = 512
HASHES_AT_ONCE_MAX = 2
PAM_CHECKS_AT_ONCE_MAX = 4
PAM_CHECK_S_MAX = 10.0
LOGONS_WAITING_MAX = 64
# Failed logons: so many in a row are free, then each doubles the wait; and when people are told.
LOGON_FAILURES_FREE = 3
LOGON_WAIT_S_MIN = 1.0
LOGON_WAIT_S_MAX = 300.0
LOGON_FAILURES_ALERT = 5
LOGON_FAILURES_REMEMBERED_MAX = 10_000  # names
LOGON_UNKNOWN_TOLD_S = 10.0  # between two events of users that do not exist
USERS_MAX = 10_000

# Fence devices of one host (oVirt: a primary and a secondary), and members of one affinity group, of each kind.
FENCE_DEVICES_MAX = 8
FENCE_CALLS_MAX = 16  # agents of one proxy that run at once
AFFINITY_MEMBERS_MAX = 1_000

# Proxies through which one fence device is tried in one round, and how far the wait between failed flows grows.
FENCE_PROXIES_TRIED_MAX = 3
FENCE_RETRY_S_MAX = 600.0

# Machines that the reason of a failed maintenance names one by one.
MAINTENANCE_BLOCKERS_NAMED_MAX = 50

# Rows that one SQL answer may hold.
SQL_ROWS_MAX = 1_000_000

# What it may take of memory, in the engine as in the telemetry silo: about six million numbers, or 200 MiB of text.
SQL_ANSWER_BYTES_MAX = 256 * 1024 * 1024

# One part of an answer is fetched without a pause, and no other thread of the process runs meanwhile: a millisecond.
SQL_PART_ROWS_MAX = 1_000
SQL_PART_BYTES = 1024 * 1024

# Questions that run at once where there are processors to spare, those that wait for their turn, and the longest that
# one may run. Those that ask for no more than SQL_SHORT_S, as every look at a host or a machine does, have threads of
# their own: they wait for no other.
SQL_AT_ONCE_MAX = 2
SQL_SHORT_S = 10.0
SQL_WAITING_MAX = 32
SQL_TIMEOUT_S_MAX = 3600.0

# An agent remembers the highest epoch of this many machines that it no longer runs.
EPOCHS_REMEMBERED_MAX = 100_000

# An agent may have started so often since the engine heard of it last. One whose journal is gone goes on above that,
# and so does one of a host that was removed and is added again: by host epochs history knows what it has already.
HOST_EPOCHS_UNHEARD_MAX = 1_000_000

# A lease operation gives up after this many unanswered calls in a row, and after losing this many compare-and-swaps.
LEASE_CALLS_FAILED_MAX = 3
LEASE_WRITES_LOST_MAX = 16

# Calls of one host that wait for a storage of leases that hangs.
LEASE_CALLS_WAITING_MAX = 1_000

# Messages that wait in the shared plant's mailbox of one simulated host; more are lost.
PLANT_MAIL_PER_HOST_MAX = 10_000

assert TURNS_PER_COMMIT_MAX >= 1
assert OPERATIONS_REMEMBERED_MAX <= OPERATIONS_KEPT_MAX
assert GUEST_TEXT_CHARS_MAX <= GUEST_LIST_CHARS_MAX <= GUEST_LINE_BYTES_MAX
assert LOGON_FAILURES_FREE < LOGON_FAILURES_ALERT
assert LOGON_WAIT_S_MIN <= LOGON_WAIT_S_MAX
assert VM_MEMORY_BYTES_MIN < VM_MEMORY_BYTES_MAX <= HOST_MEMORY_BYTES_MAX
