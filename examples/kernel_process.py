"""Attributes of a process, in a child. An ordinary user can do this as well.

Proves: each setting is shown by the kernel afterwards, and the parent has none of them.
"""

from __future__ import annotations

import os

from minictr.kernel import process


def inside() -> None:
    process.setsid()
    process.set_umask(0o077)
    process.set_rlimit("nofile", 64)
    process.set_oom_score_adj("self", 500)
    process.set_personality(aslr=False)
    process.no_new_privs()
    rows = {
        "umask": f"{process.get_umask():03o}",
        "nofile": process.get_rlimit("nofile"),
        "oom_score_adj": process.get_oom_score_adj(),
        "personality, aslr": process.get_personality(),
        "no_new_privs": process.has_no_new_privs(),
        "session leader": os.getsid(0) == os.getpid(),
    }
    for name, value in rows.items():
        print(f"{name:18} {value}", flush=True)


def state() -> tuple[object, ...]:
    return process.get_umask(), process.get_rlimit("nofile"), process.get_personality(), process.has_no_new_privs()


def main() -> None:
    before = state()
    child = os.fork()
    if child == 0:
        inside()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert before == (
        process.get_umask(),
        process.get_rlimit("nofile"),
        process.get_personality(),
        process.has_no_new_privs(),
    )
    print("the parent is as before")


if __name__ == "__main__":
    main()
