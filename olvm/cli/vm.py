"""`olvm vm`: virtual machines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, get_args

from cyclopts import App, Parameter

from olvm.cli.changes import Asked, carry_out, cluster_or_only, confirm_removal, once_each
from olvm.cli.completer import host_names, vm_names
from olvm.cli.connection import data_center
from olvm.cli.hardware_options import NO_PARTS, Parts, key_values
from olvm.cli.listing import list_records, show_record
from olvm.cli.logon import add_to
from olvm.cli.machine_size import size_sentences
from olvm.cli.options import (
    CHANGING,
    LISTING,
    PRINTING,
    Changing,
    Cluster,
    Deadline,
    Listing,
    Printing,
    VmNames,
    Yes,
)
from olvm.cli.output import chosen_columns, write_object, write_rows
from olvm.model import messages as m
from olvm.model.sizes import parse_size

USUAL_COLUMNS = (
    "name",
    "status",
    "host",
    "cluster",
    "vcpus",
    "memory_bytes",
    "high_availability",
    "priority",
    "lease",
    "copy_phase",
)
VERDICT_COLUMNS = ("host", "accepted", "chosen", "score", "rejected_by", "reason")
VmName = Annotated[str, Parameter(help="Name or id.", completer=vm_names)]
Memory = Annotated[str, Parameter(help="As in 512MiB or 8GiB.", metavar="SIZE")]
Priority = Annotated[int | None, Parameter(help="1 to 100; the higher come back first.", metavar="N")]
Lease = Annotated[
    bool | None,
    Parameter(
        help="A lease on shared storage: it can start elsewhere without power management. If not said: as "
        "--high-availability."
    ),
]
ResumeBehavior = Annotated[
    m.ResumeBehavior | None,
    Parameter(help="What an I/O error that paused it leads to; with a lease only kill."),
]
MigrationPolicy = Annotated[
    str | None, Parameter(help="As in post_copy; empty: its cluster's.", metavar="POLICY")
]

app = App(name="vm", help="Virtual machines: create, start, stop and watch them.")

_HELP_BY_VERB: dict[m.VmVerb, str] = {
    "start": "Run machines; suspended ones go on from their saved memory.",
    "shutdown": "Ask the guests to shut down.",
    "stop": "End machines at once, as by pulling the plug.",
    "reboot": "Ask the guests to boot again.",
    "reset": "Boot machines again at once, as by the reset button.",
    "suspend": "Save the memory of machines to disk and end them.",
    "resume": "Let suspended or paused machines go on.",
    "cancel_migration": "Give up the migrations under way; the machines run on where they were.",
}


@app.command(name="list")
def list_(*, options: Listing = LISTING) -> int:
    """List machines."""
    with data_center(options) as dc:
        return list_records(dc.vms, options, USUAL_COLUMNS)


@app.command
def show(name: VmName, /, *, options: Printing = PRINTING) -> int:
    """Show everything about one machine; also its size at its next start, where that is another one."""
    with data_center(options) as dc:
        record = dc.vms.row(name)
    code = show_record(record, options)
    sentences = size_sentences(record)
    if sentences and options.output == "table" and not options.columns:
        print("\n" + "\n".join(sentences))
    return code


@app.command
def create(
    names: Annotated[list[str], Parameter(help="Names; several get the same size.")],
    /,
    *,
    vcpus: Annotated[int, Parameter(help="Virtual CPUs.", metavar="N")] = 1,
    memory: Memory = "1GiB",
    cluster: Cluster = None,
    high_availability: Annotated[
        bool, Parameter(help="Start it again when its host says that it died.")
    ] = False,
    priority: Priority = 50,
    lease: Lease = None,
    resume_behavior: ResumeBehavior = None,
    migration_policy: MigrationPolicy = "",
    migratable: Annotated[bool, Parameter(help="May be moved to another host while it runs.")] = True,
    pinned_host: Annotated[
        list[str] | None,
        Parameter(help="Run only there; may be repeated.", negative=(), completer=host_names, metavar="HOST"),
    ] = None,
    description: Annotated[str, Parameter(help="For people.", metavar="TEXT")] = "",
    dedicated: Annotated[bool, Parameter(negative=(), help="A process of its own for its actor.")] = False,
    parts: Parts = NO_PARTS,
    options: Changing = CHANGING,
) -> int:
    """Define machines; they are down until started."""
    memory_bytes = parse_size(memory)
    hardware = parts.hardware()
    with data_center(options) as dc:
        place = cluster_or_only(dc, cluster)
        asked = [
            Asked(
                command=m.CreateVm(
                    name=name,
                    cluster=place,
                    vcpus=vcpus,
                    memory_bytes=memory_bytes,
                    high_availability=high_availability,
                    pinned_hosts=list(pinned_host or ()),
                    description=description,
                    dedicated=dedicated,
                    priority=50 if priority is None else priority,
                    lease=lease,
                    resume_behavior=resume_behavior or "",
                    migration_policy=migration_policy or "",
                    migratable=migratable,
                    hardware=hardware,
                ),
                what=f"create vm {name}",
            )
            for name in once_each(names)
        ]
        return carry_out(dc, asked, options)


@app.command
def update(
    names: VmNames,
    /,
    *,
    vcpus: Annotated[int | None, Parameter(help="Virtual CPUs, from its next start on.", metavar="N")] = None,
    memory: Annotated[
        str | None, Parameter(help="As in 8GiB, from its next start on.", metavar="SIZE")
    ] = None,
    high_availability: Annotated[
        bool | None, Parameter(help="Start it again when its host says that it died.")
    ] = None,
    description: Annotated[str | None, Parameter(help="For people.", metavar="TEXT")] = None,
    priority: Priority = None,
    lease: Annotated[bool | None, Parameter(help="A lease on shared storage.")] = None,
    resume_behavior: ResumeBehavior = None,
    migration_policy: MigrationPolicy = None,
    migratable: Annotated[bool | None, Parameter(help="May be moved to another host while it runs.")] = None,
    options: Changing = CHANGING,
) -> int:
    """Change what is given."""
    memory_bytes = None if memory is None else parse_size(memory)
    asked = [
        Asked(
            command=m.UpdateVm(
                vm=name,
                vcpus=vcpus,
                memory_bytes=memory_bytes,
                high_availability=high_availability,
                description=description,
                priority=priority,
                lease=lease,
                resume_behavior=resume_behavior,
                migration_policy=migration_policy,
                migratable=migratable,
            ),
            what=f"update vm {name}",
        )
        for name in once_each(names)
    ]
    with data_center(options) as dc:
        return carry_out(dc, asked, options)


@app.command
def migrate(
    names: VmNames,
    /,
    *,
    to: Annotated[
        str | None,
        Parameter(help="The host; if not said, the cluster chooses.", completer=host_names, metavar="HOST"),
    ] = None,
    options: Changing = CHANGING,
) -> int:
    """Move machines to another host while they run."""
    with data_center(options) as dc:
        asked = [
            Asked(command=m.VmCommand(name, "migrate", None, to), what=f"migrate vm {name}")
            for name in once_each(names)
        ]
        return carry_out(dc, asked, options)


@app.command
def remove(names: VmNames, /, *, yes: Yes = False, options: Changing = CHANGING) -> int:
    """Remove machines that are down."""
    chosen = once_each(names)
    with data_center(options) as dc:
        confirm_removal("vm", chosen, yes)
        return carry_out(dc, [_asked(name, "remove", None) for name in chosen], options)


@app.command
def explain(name: VmName, /, *, options: Printing = PRINTING) -> int:
    """Say of every host why it would or would not take the machine now. Changes nothing."""
    columns = chosen_columns(options.columns, VERDICT_COLUMNS, VERDICT_COLUMNS)
    with data_center(options) as dc:
        explanation = dc.vms[name].explain()
    rows = [{column: getattr(verdict, column) for column in VERDICT_COLUMNS} for verdict in explanation.hosts]
    if options.output == "json":
        row = {
            "vm": explanation.vm,
            "policy": explanation.policy,
            "summary": explanation.summary,
            "hosts": rows,
        }
        write_object(row, list(row), "json")
        return 0
    write_rows(rows, columns, options.output)
    if options.output == "table":
        print(f"\n{explanation.summary}")
    return 0


@app.command
def task(
    name: VmName,
    verb: Annotated[str, Parameter(help="As in attach_disk.", metavar="VERB")],
    arguments: Annotated[
        list[str] | None, Parameter(help="As in name=vdb size_bytes=10GiB.", metavar="KEY=VALUE")
    ] = None,
    /,
    *,
    options: Changing = CHANGING,
) -> int:
    """Do something to a machine or its guest: attach_disk, set_vcpus, create_snapshot, notify, …

    What is plugged in or out is kept for its next start. revert_snapshot name=… loses all that was written to the
    machine's disks since the snapshot was taken (discard_later=true: the snapshots taken since as well).
    """
    command = m.VmTask(name, verb, key_values(arguments or ()))
    with data_center(options) as dc:
        return carry_out(dc, [Asked(command=command, what=f"{verb} of vm {name}")], options)


@app.command
def console(
    name: VmName,
    /,
    *,
    valid: Annotated[int, Parameter(help="Seconds that the ticket is good for.", metavar="S")] = 120,
    options: Printing = PRINTING,
) -> int:
    """Say where the machine's screen is seen, with a password that is good for one look."""
    with data_center(options) as dc:
        ticket = dc.vms[name].console(valid=valid)
    row: dict[str, object] = {
        "kind": ticket.kind,
        "host": ticket.host,
        "port": ticket.port,
        "ticket": ticket.ticket,
        "expires_ns": ticket.expires_ns,
    }
    write_object(row, list(row), options.output)
    return 0


def _asked(name: str, verb: m.VmVerb, deadline_s: float | None) -> Asked:
    return Asked(
        command=m.VmCommand(name, verb, deadline_s, None), what=f"{verb.replace('_', ' ')} vm {name}"
    )


def _commanding(verb: m.VmVerb) -> Callable[..., int]:
    def command(names: VmNames, /, *, deadline: Deadline = None, options: Changing = CHANGING) -> int:
        with data_center(options) as dc:
            return carry_out(dc, [_asked(name, verb, deadline) for name in once_each(names)], options)

    return command


assert set(_HELP_BY_VERB) | {"migrate", "remove"} == set(get_args(m.VmVerb))
for _verb, _help in _HELP_BY_VERB.items():
    app.command(_commanding(_verb), name=_verb.replace("_", "-"), help=_help)
add_to(app)
