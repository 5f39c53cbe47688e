"""Whether KVM truly runs a guest here: one is run.

A `/dev/kvm` that opens proves nothing: there are kernels that offer it where no guest gets through its boot. So a guest
of 142 bytes is booted with the host's own CPU model; it switches to 64 bits with paging on, counts to a million, and
says so through a port that ends QEMU with a number of its own. Must not know libvirt.
"""

from __future__ import annotations

import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

PROBE_TIMEOUT_S = 10.0
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
QEMU = "qemu-system-x86_64"

# At 0x7c00, in real mode: clear segments; one page directory with one page of 2 MiB at 0x1000; PAE, long mode, paging;
# jump to 64-bit code: cpuid, loop 1,000,000 times, out 0x21 to port 0xf4, hlt. Then the GDT.
_BOOT_SECTOR = bytes.fromhex(
    "fa31c08ed88ec08ed0bc0070bf0010b9001831c0fcf3abc70600100320c70600200330c706003083000f20e06683c820"
    "0f22e066b8001000000f22d866b9800000c00f32660d000100000f300f0116887c0f20c0660d010000800f22c0ea627c"
    "080031c00fa2b940420f00e2feb021e6f4f4660f1f4400000000000000000000ffff0000009aaf000f00787c0000"
)
# isa-debug-exit makes (value << 1) | 1 of what is written to it.
_PROOF = (0x21 << 1) | 1


def kvm_verdict(emulator: str = "") -> tuple[bool, str]:
    """Whether KVM runs a guest, and why that is said. Tried once for each boot of the machine and each QEMU."""
    return _probe(emulator or QEMU, "kvm", "host", BOOT_ID.read_text().strip())


@lru_cache(maxsize=16)
def _probe(emulator: str, accelerator: str, cpu: str, boot_id: str) -> tuple[bool, str]:
    del boot_id  # part of the key alone
    with tempfile.NamedTemporaryFile(prefix="olvm-probe-") as disk:
        disk.write(_BOOT_SECTOR.ljust(510, b"\0") + b"\x55\xaa")
        disk.flush()
        command = [emulator, "-accel", accelerator, "-cpu", cpu, "-machine", "pc", "-m", "16", "-nodefaults"]
        command += ["-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        command += ["-drive", f"file={disk.name},format=raw,if=ide,readonly=off,snapshot=on"]
        return _run(command)


def _run(command: list[str]) -> tuple[bool, str]:
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"a tiny guest did not get through its boot within {PROBE_TIMEOUT_S:g} s"
    except OSError as error:
        return False, f"{command[0]} cannot be run ({error.strerror})"
    if ended.returncode == _PROOF:
        return True, "a tiny guest ran on it"
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    last = said[0][:200] if said else "QEMU said nothing"
    return False, f"a tiny guest ended with {ended.returncode} ({last})"
