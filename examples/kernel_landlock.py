"""Rights over files and TCP ports, taken from oneself. An ordinary user can do this as well.

Proves: a file outside the allowed directory cannot be opened any more, a new one inside can be made, a port that is not
named cannot be connected to; all that in the child alone, for good.
"""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Callable

from minictr.kernel import landlock, process


def attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as err:
        return errno.errorcode[err.errno or 0]
    return "done"


def look(directory: str, port: int) -> str:
    def connect() -> None:
        with socket.socket() as client:
            client.connect(("127.0.0.1", port))

    def create() -> None:
        os.close(os.open(f"{directory}/new", os.O_CREAT | os.O_WRONLY))

    read, made, connected = attempt(lambda: open("/etc/passwd").close()), attempt(create), attempt(connect)
    return f"read /etc/passwd: {read}, make a file in its directory: {made}, connect: {connected}"


def main() -> None:
    print(f"this kernel has Landlock ABI {landlock.abi()}")
    with tempfile.TemporaryDirectory() as directory, socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        child = os.fork()
        if child == 0:
            with landlock.ruleset(["read_file", "write_file", "make_reg"], ["connect_tcp"]) as rules:
                rules.allow_path(directory)
                process.no_new_privs()
                landlock.restrict(rules)
            print(f"restricted: {look(directory, port)}", flush=True)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(f"the parent: {look(directory, port)}")


if __name__ == "__main__":
    main()
