"""Notification of system calls, by itself: a child asks, this process answers. An ordinary user can do this as well.

Proves: a call of the child waits until its listener's owner has said what it returns; a path is read from its memory; a
descriptor is put into it; without an owner such calls fail with ENOSYS.
"""

from __future__ import annotations

import errno
import os
import struct

from minictr.kernel import packets, process, seccomp, seccomp_notify

MKDIRAT = {"x86_64": 258, "aarch64": 34}[os.uname().machine]
PROGRAM = b"".join(
    struct.pack("=HBBI", *row)  # struct sock_filter, linux/filter.h
    for row in (
        (0x20, 0, 0, 0),  # load the system call's number
        (0x15, 0, 1, MKDIRAT),  # mkdirat: go on, else skip one
        (0x06, 0, 0, 0x7FC00000),  # SECCOMP_RET_USER_NOTIF
        (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
    )
)


def attempt(name: str) -> str:
    root = os.open("/", os.O_PATH)
    try:
        os.mkdir(name, dir_fd=root)
    except OSError as err:
        return errno.errorcode[err.errno or 0]
    finally:
        os.close(root)
    return "made"


def child(socket: packets.Socket) -> None:
    process.no_new_privs()
    listener = seccomp.load(PROGRAM, flags=seccomp.NEW_LISTENER)
    packets.send(socket, b"listener", [listener])
    os.close(listener)
    print(f"refused: {attempt('refused')}", flush=True)
    print(f"pretended: {attempt('pretended')}, there: {os.path.exists('/pretended')}", flush=True)
    attempt("given")
    print(f"given: {os.read(50, 100).decode()}", flush=True)
    packets.receive(socket, 1)  # until the listener is closed
    print(f"nobody answers: {attempt('unanswered')}", flush=True)


def main() -> None:
    ours, theirs = packets.connected_pair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        child(theirs)
        os._exit(0)
    theirs.close()
    _, (listener,) = packets.receive(ours, 16, 1)
    print(f"sizes of its structures: {seccomp_notify.sizes()}; probe: {seccomp_notify.probe()['seccomp_notify']}")
    for _ in range(3):
        found = seccomp_notify.receive(listener)
        assert found is not None
        path = seccomp_notify.string(listener, found.id, found.pid, found.args[1])
        if path == b"given":
            reader, writer = os.pipe()
            os.write(writer, b"through a pipe of ours")
            seccomp_notify.add_fd(listener, found.id, reader, at=50)
            os.close(reader)
            os.close(writer)
        refused = errno.EDQUOT if path == b"refused" else 0
        seccomp_notify.respond(listener, found.id, error=refused)
    os.close(listener)
    packets.send(ours, b"closed")
    ours.close()
    assert os.waitpid(pid, 0)[1] == 0


if __name__ == "__main__":
    main()
