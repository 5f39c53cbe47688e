"""`olvm host check`: what this machine lacks to be a host. Needs no data center, neither Ray nor libvirt's binding."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from olvm.cli.options import PRINTING, Printing
from olvm.cli.output import chosen_columns, shown, write_rows

if TYPE_CHECKING:
    from hypervisor_backends.host_check import Finding

COLUMNS = ("state", "what", "says", "mend")


def check(
    *,
    uri: Annotated[str, Parameter(help="Of libvirt.", metavar="URI")] = "qemu:///system",
    bridge: Annotated[str, Parameter(help="That machines are connected to.", metavar="NAME")] = "br0",
    lease_directory: Annotated[str, Parameter(help="Shared by the hosts, for leases.", metavar="DIR")] = "",
    lock_manager: Annotated[
        Literal["", "lockd", "sanlock"], Parameter(help="Of libvirt; needs --lease-directory.")
    ] = "",
    lockspace: Annotated[str, Parameter(help="Of the lock manager.", metavar="NAME")] = "area",
    options: Printing = PRINTING,
) -> int:
    """Say what this machine lacks to be a host, and the command that mends it; exit code 1 if it cannot be one."""
    from hypervisor_backends.host_check import CheckOptions, check_host, is_fit

    columns = chosen_columns(options.columns, COLUMNS, COLUMNS)
    checked = CheckOptions(
        uri=uri,
        bridge=bridge,
        lease_directory=lease_directory,
        lock_manager=lock_manager,
        lockspace=lockspace,
    )
    findings = check_host(checked)
    if options.output == "table" and not options.columns:
        _tell(findings)
    else:
        rows = [{column: getattr(finding, column) for column in COLUMNS} for finding in findings]
        write_rows(rows, columns, options.output)
    fit = is_fit(findings)
    if not fit:
        lacking = ", ".join(finding.what for finding in findings if finding.state == "missing")
        print(f"olvm: this machine cannot be a host yet: {lacking}", file=sys.stderr)
    return 0 if fit else 1


def _tell(findings: Sequence[Finding]) -> None:
    """The command below its finding, so that it can be copied."""
    width = max(len(finding.what) for finding in findings)
    for finding in findings:
        print(f"{finding.state:9}{finding.what:{width}}  {shown(finding.says)}")
        if finding.mend:
            print(f"{'':9}{'':{width}}  $ {shown(finding.mend)}")
