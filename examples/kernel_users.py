"""A user namespace and its maps. An ordinary user can do this as well.

Proves: root inside is nobody special outside; what /etc/subuid delegates is found.
"""

from __future__ import annotations

import os

from minictr.kernel import users
from minictr.kernel.child import Child

CLONE_NEWUSER = 0x10000000  # linux/sched.h


def main() -> None:
    with Child(CLONE_NEWUSER) as child:
        users.write_uid_map(child.pid, "")
        users.write_gid_map(child.pid, "", setgroups="deny")
        ((inside, outside, count),) = users.read_map(child.pid)
        print(f"user {inside} inside is user {outside} outside, {count} id in all")
    with users.user_namespace() as userns:
        same = os.fstat(userns.fileno()).st_ino == os.stat("/proc/self/ns/user").st_ino
        print(f"a user namespace held by a descriptor, nobody in it; ours: {same}")
    print(f"/etc/subuid delegates to this user: {users.subordinate_ids() or 'nothing'}")


if __name__ == "__main__":
    main()
