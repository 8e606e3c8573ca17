"""A filter over system calls: built, explained, compared, and proved by a program that may no longer do what it could.
Needs root.
"""

from __future__ import annotations

import tempfile

import minictr as mc
from minictr.images.minimal import minimal

AF_ALG = 38  # the kernel's cryptography, by sockets


def attempt(box: mc.Container) -> str:
    """What becomes of a mkdir in BOX."""
    done = box.run(["mkdir", "/tmp/new"], capture_output=True, text=True)
    return "made" if done.returncode == 0 else done.stderr.strip().rpartition(": ")[2]


def main(rootfs: str) -> None:
    flt = mc.SeccompFilter("allow").deny("mkdir", "mkdirat", errno="EDQUOT").deny("socket", when=(0, "==", AF_ALG))
    print(flt.explain("mkdir"))
    print(flt.explain("socket", AF_ALG))
    print(flt.explain("socket", 2))

    box = mc.Container(rootfs).with_(mc.Tmpfs("/tmp"))
    print(f"mkdir with the default policy: {attempt(box)}")
    print(f"mkdir with the filter: {attempt(box.with_(mc.Seccomp(flt)))}")

    docker = mc.SeccompFilter.docker()
    print(f"{docker}, {len(docker.program) // 8} instructions")
    print("what minictr's own policy says differently:")
    print(docker.diff(mc.SeccompFilter.default()))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        minimal(f"{directory}/rootfs", ["mkdir"])
        main(f"{directory}/rootfs")
