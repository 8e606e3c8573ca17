"""A filter over system calls, written by hand. An ordinary user can do this as well.

Proves: the system call that the program names fails with the errno it names, in the child alone.
"""

from __future__ import annotations

import errno
import os
import struct

from minictr.kernel import process, seccomp

MKDIRAT = {"x86_64": 258, "aarch64": 34}[os.uname().machine]


def instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    """struct sock_filter, linux/filter.h."""
    return struct.pack("=HBBI", code, jump_true, jump_false, value)


PROGRAM = (
    instruction(0x20, 0, 0, 0)  # load the system call's number
    + instruction(0x15, 0, 1, MKDIRAT)  # mkdirat: go on, else skip one
    + instruction(0x06, 0, 0, 0x00050000 | errno.EDQUOT)  # SECCOMP_RET_ERRNO
    + instruction(0x06, 0, 0, 0x7FFF0000)  # SECCOMP_RET_ALLOW
)


def attempt() -> str:
    try:
        os.mkdir("/proc/nothing", dir_fd=os.open("/", os.O_PATH))
    except OSError as err:
        return errno.errorcode[err.errno or 0]
    return "made"


def main() -> None:
    print(f"this kernel's answers: {', '.join(seccomp.actions_available())}")
    print(f"a program of {seccomp.validate(PROGRAM)} instructions; without it, mkdirat in /proc: {attempt()}")
    child = os.fork()
    if child == 0:
        process.no_new_privs()
        seccomp.load(PROGRAM)
        print(f"with it: {attempt()}; mode and filters {seccomp.mode()}", flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(f"in the parent: mode and filters {seccomp.mode()}")


if __name__ == "__main__":
    main()
