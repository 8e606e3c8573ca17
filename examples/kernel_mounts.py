"""Mounts in a mount namespace of this thread. Needs root.

Proves: each mount is there with what was asked of it, is gone after its block, and the host never had it.
"""

from __future__ import annotations

import os
import tempfile

from minictr.kernel import mounts
from minictr.kernel.mounts import mountinfo
from minictr.kernel.namespaces import unshare


def show(target: str) -> str:
    mount = next(mount for mount in reversed(mountinfo()) if mount.target == target)
    return f"{mount.fstype} {','.join(mount.options)}"


def main() -> None:
    before = mountinfo()
    with tempfile.TemporaryDirectory() as place, unshare("mnt"):
        with mounts.tmpfs(place, size="1M", nosuid=True):
            stat = os.statvfs(place)
            print(f"{show(place)}, {stat.f_blocks * stat.f_frsize} bytes")
        with mounts.bind("/etc", place, readonly="rro", noexec=True):
            print(f"{show(place)}, writable: {os.access(place, os.W_OK)}")
        with mounts.bind("/etc", place, uid_map="0 100000 65536\n", gid_map="0 100000 65536\n"):
            shown, stored = os.stat(f"{place}/passwd").st_uid, os.stat("/etc/passwd").st_uid
            print(f"id-mapped: passwd belongs to {shown}, on disk to {stored}")
        print(f"after the blocks: mounted {os.path.ismount(place)}")
    assert mountinfo() == before
    print("the host's mount table is as before")


if __name__ == "__main__":
    main()
