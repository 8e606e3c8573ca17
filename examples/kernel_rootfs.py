"""Another root, and one that is never written. Needs root.

Proves: a layer takes all writes and is thrown away; after pivot_root nothing of the old root is left.
"""

from __future__ import annotations

import os
import tempfile

from minictr.kernel import mounts, rootfs
from minictr.kernel.namespaces import unshare


def inside(image: str) -> None:
    """In a child: its root moves, ours does not."""
    unshare("mnt").keep()
    rootfs.overlay_root(image, lower=[image], size="1M").keep()
    rootfs.pivot_root(image)
    with open("/motd", "w") as file:
        file.write("changed inside")
    with open("/motd") as file:
        print(f"inside: / holds {os.listdir('/')}, motd says {file.read()!r}", flush=True)
    mounts.set_attributes("/", readonly=True)
    print(f"inside: read-only now, writable: {os.access('/', os.W_OK)}", flush=True)


def main() -> None:
    with tempfile.TemporaryDirectory() as image:
        with open(f"{image}/motd", "w") as file:
            file.write("of the image")
        child = os.fork()
        if child == 0:
            inside(image)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        with open(f"{image}/motd") as file:
            print(f"outside: motd says {file.read()!r}")


if __name__ == "__main__":
    main()
