"""A function of this program decides system calls of another: refuses, pretends, opens a file for it, lets go on.

Proves: device nodes "are made" that nobody made; a file outside the container is read through a descriptor that was put
into the program; what the function raises is a refusal; an exec into a running container has a function of its own.
"""

from __future__ import annotations

import os
import tempfile

import minictr as mc
from minictr.images.minimal import minimal


class Decider:
    """Decides, and remembers what it was asked."""

    def __init__(self, secret: str) -> None:
        self.secret, self.asked = secret, set[str]()

    def __call__(self, call: mc.Syscall) -> object:
        self.asked.add(call.name)
        if call.name in ("mknod", "mknodat"):
            path = call.string(call.args[call.name == "mknodat"])
            return 0 if path == "/dev/mine" else mc.Errno("EDQUOT")
        if call.name in ("mkdir", "mkdirat"):
            raise RuntimeError("no rule for directories")
        if call.string(call.args[1]) == "/secret":
            with open(self.secret) as file:
                return call.add_fd(file, cloexec=True)
        return mc.CONTINUE  # never to permit something: the program may change what a pointer leads to


SCRIPT = """
mknod /dev/mine c 1 3 && test ! -e /dev/mine && echo "mknod /dev/mine: done, as it seems"
mknod /dev/other c 1 3 2>&1
test ! -e /secret && cat /secret
mkdir /tmp/x 2>&1
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        root, secret = os.path.join(work, "root"), os.path.join(work, "secret")
        minimal(root, ["sh", "@coreutils"])
        with open(secret, "w") as file:
            file.write("what only the host can read\n")
        flt = mc.SeccompFilter.default().notify("mknod", "mknodat", "mkdir", "mkdirat", "openat")
        print(flt.explain("mknod"))
        decider = Decider(secret)
        done = mc.run(["sh", "-c", SCRIPT], rootfs=root, seccomp=flt, on_syscall=decider, stdout=mc.PIPE, text=True)
        print(done.stdout, end="")
        print(f"raised: {done.handler_errors[0]!r}")
        print(f"asked about openat: {'openat' in decider.asked}")

        box = mc.Container(root, name=f"notify-{os.getpid()}").start(["sleep", "100"])
        try:
            mine = mc.SeccompFilter("allow").notify("mknod", "mknodat")
            script = ["sh", "-c", "mknod /dev/mine c 1 3 && echo exec: done, as it seems"]
            told = box.exec(script, seccomp=mine, on_syscall=Decider(secret), stdout=mc.PIPE, text=True)
            print(told.stdout, end="")
        finally:
            box.remove(force=True)


if __name__ == "__main__":
    main()
