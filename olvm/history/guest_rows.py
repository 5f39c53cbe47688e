"""What guests told last: the table of facts, and the views that show its lists row by row.

Decides columns and their names; all that stands in them is a guest's word. Lists are kept as JSON in one row, for they
are told, replaced and read together; whoever wants to join and count has the views.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from olvm.history.row_table import Column, Row, RowTable, json_text, microseconds


class GuestFacts(msgspec.Struct, kw_only=True, frozen=True):
    """What the agents of one guest last told."""

    vm_id: str
    told_ns: int
    vm_name: str = ""
    host: str = ""
    guest_host_name: str = ""
    guest_fqdn: str = ""
    os_distribution: str = ""
    os_version: str = ""
    os_codename: str = ""
    os_kernel: str = ""
    os_architecture: str = ""
    os_type: str = ""
    timezone: str = ""
    timezone_offset_minutes: int = 0
    ip_addresses: list[str] = []
    logged_in_users: list[str] = []
    session: str = ""
    applications: list[str] = []
    interfaces: list[dict[str, Any]] = []
    filesystems: list[dict[str, Any]] = []
    disk_mapping: dict[str, str] = {}
    containers: list[dict[str, Any]] = []
    cpu_count: int = 0
    memory_total_kib: int = 0
    boot_id: str = ""
    agents: list[str] = []
    agent_api_version: int | None = None
    sources: dict[str, str] = {}
    lines_discarded: int = 0
    messages_unknown: int = 0
    messages_delayed: int = 0
    events_dropped: int = 0
    values_refused: int = 0
    details: dict[str, Any] = {}


# Of version 1 of the schema.
_FIRST_COLUMNS: Final = (
    Column("vm_id", "VARCHAR NOT NULL", "Identity of the VM."),
    Column("told_at", "TIMESTAMP NOT NULL", "When the agent told, UTC."),
    Column("vm_name", "VARCHAR", "Name of the VM in the engine."),
    Column("host_name", "VARCHAR", "Host that heard it."),
    Column("guest_host_name", "VARCHAR", "Host name inside the guest."),
    Column("guest_fqdn", "VARCHAR", "Fully qualified name inside the guest."),
    Column("os_distribution", "VARCHAR", "Operating system."),
    Column("os_version", "VARCHAR", "Its version."),
    Column("os_kernel", "VARCHAR", "Its kernel."),
    Column("os_architecture", "VARCHAR", "Its architecture."),
    Column("timezone", "VARCHAR", "Time zone of the guest."),
    Column("ip_addresses", "JSON", "List of addresses."),
    Column("logged_in_users", "JSON", "List of user names."),
    Column("applications", "JSON", "List of installed applications, name-version; see guest_applications."),
    Column("agent_api_version", "INTEGER", "Version that the guest agent speaks."),
    Column("details", "JSON", "Everything else, by name."),
)
SINCE_VERSION_2: Final = (
    Column("os_codename", "VARCHAR", "The system's code name."),
    Column("os_type", "VARCHAR", "linux or windows."),
    Column("timezone_offset_minutes", "INTEGER", "What its clock is ahead of UTC."),
    Column("session", "VARCHAR", "Of its console: UserLoggedOn, Active, Locked, LoggedOff or Unknown."),
    Column("interfaces", "JSON", "List of network interfaces; see guest_interfaces."),
    Column("filesystems", "JSON", "List of file systems when this was told; see guest_filesystems."),
    Column("disk_mapping", "JSON", "By serial of a disk, what the guest calls it."),
    Column("containers", "JSON", "List of containers; see guest_containers."),
    Column("cpu_count", "INTEGER", "CPUs that the guest uses."),
    Column("memory_total_kib", "BIGINT", "Memory that the guest sees."),
    Column("boot_id", "VARCHAR", "Another after each boot."),
    Column("agents", "JSON", "Who speaks for the guest, with versions."),
    Column("sources", "JSON", "By fact, which agent told it: olvm, ovirt or qemu-ga."),
    Column("lines_discarded", "BIGINT", "Lines of its agent that were no message, since the host listens."),
    Column("messages_unknown", "BIGINT", "Messages of its agent that the protocol does not have."),
    Column("messages_delayed", "BIGINT", "How often its agent talked too fast, and had to wait."),
    Column("events_dropped", "BIGINT", "Events of its sessions that were too many at once."),
)
SINCE_VERSION_7: Final = (
    Column(
        "values_refused",
        "BIGINT",
        "Values of its agents of another kind, beyond belief or too long: left out or cut, since the host listens.",
    ),
)
_COLUMNS: Final = (*_FIRST_COLUMNS, *SINCE_VERSION_2, *SINCE_VERSION_7)

GUEST_FACTS: Final = RowTable(
    "guest_facts",
    "The latest word of each VM's guest agents.",
    ("vm_id",),
    _COLUMNS,
    "do update set "
    + ", ".join(f"{column.name} = excluded.{column.name}" for column in _COLUMNS[1:])
    + " where excluded.told_at >= guest_facts.told_at",
)


class View(NamedTuple):
    """One row for each member of a list of `GUEST_FACTS`; `columns` are expressions over `one`, the member."""

    name: str
    comment: str
    of: str
    columns: tuple[tuple[str, str], ...]

    @property
    def creation_statements(self) -> tuple[str, str]:
        columns = ", ".join(f"{expression} as {name}" for name, expression in self.columns)
        return (
            f"create view {self.name} as select vm_id, vm_name, told_at, {columns} from"  # noqa: S608 - our own names
            f" (select vm_id, vm_name, told_at, unnest({self.of}::JSON[]) as one from {GUEST_FACTS.name})",
            f"comment on view {self.name} is '{self.comment}'",
        )


VIEWS: Final = (
    View(
        "guest_interfaces",
        "Network interfaces that guests told of, one row each.",
        "interfaces",
        (
            ("name", "one->>'name'"),
            ("mac", "one->>'mac'"),
            ("inet", "one->'inet'"),
            ("inet6", "one->'inet6'"),
        ),
    ),
    View(
        "guest_filesystems",
        "File systems that guests told of, one row each.",
        "filesystems",
        (
            ("path", "one->>'path'"),
            ("type", "one->>'type'"),
            ("total_bytes", "try_cast(one->>'total_bytes' as BIGINT)"),
            ("used_bytes", "try_cast(one->>'used_bytes' as BIGINT)"),
        ),
    ),
    View(
        "guest_containers",
        "Containers that guests told of, one row each.",
        "containers",
        (
            ("container_id", "one->>'id'"),
            ("names", "one->'names'"),
            ("image", "one->>'image'"),
            ("status", "one->>'status'"),
            ("command", "one->>'command'"),
        ),
    ),
    View(
        "guest_applications",
        "Applications that guests told of, one row each.",
        "applications",
        (("application", "one->>'$'"),),
    ),
)


def guest_facts_row(facts: GuestFacts) -> Row:
    """The row of `GUEST_FACTS`."""
    return (
        facts.vm_id,
        microseconds(facts.told_ns),
        facts.vm_name or None,
        facts.host or None,
        facts.guest_host_name or None,
        facts.guest_fqdn or None,
        facts.os_distribution or None,
        facts.os_version or None,
        facts.os_kernel or None,
        facts.os_architecture or None,
        facts.timezone or None,
        json_text(facts.ip_addresses),
        json_text(facts.logged_in_users),
        json_text(facts.applications),
        facts.agent_api_version,
        json_text(facts.details),
        facts.os_codename or None,
        facts.os_type or None,
        facts.timezone_offset_minutes if facts.timezone else None,
        facts.session or None,
        json_text(facts.interfaces),
        json_text(facts.filesystems),
        json_text(facts.disk_mapping),
        json_text(facts.containers),
        facts.cpu_count or None,
        facts.memory_total_kib or None,
        facts.boot_id or None,
        json_text(facts.agents),
        json_text(facts.sources),
        facts.lines_discarded,
        facts.messages_unknown,
        facts.messages_delayed,
        facts.events_dropped,
        facts.values_refused,
    )
