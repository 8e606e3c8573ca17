"""Whether a virtual machine with the processor's own help can be had: found by booting one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time

# 16-bit code: mov al, 0x31; out 0xf4, al; hlt. QEMU's isa-debug-exit makes of it the exit code 0x31 * 2 + 1
SECTOR = bytes([0xB0, 0x31, 0xE6, 0xF4, 0xF4]).ljust(510, b"\0") + b"\x55\xaa"
BOOTED = 0x31 * 2 + 1
DEADLINE = 4.0  # seconds; a firmware and one sector take 0.6 emulated, 10 where KVM is itself emulated
QEMU = f"qemu-system-{os.uname().machine}"


def kvm_trouble() -> str:
    """Why no machine boots under KVM here, "" when one did: the firmware and one sector, within DEADLINE seconds."""
    if os.uname().machine != "x86_64":
        return f"the boot that is tried is x86_64's, and this is {os.uname().machine}"
    if not shutil.which(QEMU):
        return f"{QEMU} not installed: scripts/bootstrap.sh bench"
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as err:
        return f"/dev/kvm: {err.strerror}"
    with tempfile.NamedTemporaryFile(prefix="minictr-bench-boot-") as sector:
        sector.write(SECTOR)
        sector.flush()
        command = [QEMU, "-accel", "kvm", "-m", "64", "-nodefaults", "-display", "none", "-no-reboot", "-device"]
        command += ["isa-debug-exit,iobase=0xf4,iosize=1", "-drive", f"file={sector.name},format=raw,snapshot=on"]
        begin = time.monotonic()
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE, check=False
            )
        except subprocess.TimeoutExpired:
            return f"a machine of one sector did not boot under KVM within {DEADLINE:.0f} s: it is not the hardware's"
    if done.returncode != BOOTED:
        lines = done.stderr.strip().splitlines() or [f"left with {done.returncode}"]
        return f"no boot under KVM after {time.monotonic() - begin:.1f} s: {lines[-1][-200:]}"
    return ""
