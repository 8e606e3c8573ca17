"""Namespaces of one thread: made, used, left again. Needs root.

Proves: inside there is another host name and no network but a loopback that is down; outside nothing changed.
"""

from __future__ import annotations

import os

from minictr.kernel import network, process
from minictr.kernel.namespaces import enter, identify, unshare


def main() -> None:
    outside = process.gethostname(), identify("thread-self", kind="net")
    with unshare("net", "uts"):
        process.sethostname("lab")
        devices = [(device.name, "up" if device.up else "down") for device in network.interfaces()]
        print(f"inside: host name {process.gethostname()}, devices {devices}")
    assert (process.gethostname(), identify("thread-self", kind="net")) == outside
    print("outside: host name and network as before")

    with unshare("pid"):
        child = os.fork()
        if child == 0:
            os._exit(os.getpid())
        print(f"a child's own process id: {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}")

    with enter(os.getpid(), "ipc") as same:  # any process id, pidfd, path or descriptor
        print(f"joined {', '.join(same.kinds)} of process {os.getpid()}")


if __name__ == "__main__":
    main()
