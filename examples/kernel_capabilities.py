"""The five sets of capabilities, in a child. Needs root.

Proves: what is taken away is refused by the kernel; what is ambient is kept over execve by an ordinary user; under
noroot root gets nothing by execve.
"""

from __future__ import annotations

import os

from minictr.kernel import capabilities


def inside() -> None:
    capabilities.drop_bounding("SYS_CHROOT")
    capabilities.set(effective=[name for name in capabilities.get().effective if name != "SYS_CHROOT"])
    try:
        os.chroot("/")
    except PermissionError as err:
        print(f"chroot without SYS_CHROOT: {err.strerror}", flush=True)
    capabilities.keep_caps()
    os.setresuid(65534, 65534, 65534)
    capabilities.set(effective=["KILL"], permitted=["KILL"], inheritable=["KILL"])
    capabilities.ambient("KILL")
    sets = capabilities.get()
    print(
        f"user {os.getuid()}: effective {sets.effective}, ambient {sets.ambient}, {len(sets.bounding)} in bounding",
        flush=True,
    )
    os.execv("/bin/grep", ["grep", "-E", "Cap(Eff|Amb)", "/proc/self/status"])


def unrooted() -> None:
    capabilities.set_securebits("noroot", "noroot_locked")
    print(f"securebits {capabilities.securebits()}: user {os.getuid()} executes", flush=True)
    os.execv("/bin/grep", ["grep", "CapPrm", "/proc/self/status"])


def main() -> None:
    for body in (inside, unrooted):
        child = os.fork()
        if child == 0:
            body()
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    main()
