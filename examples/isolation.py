"""What truly confines a program, read back from the kernel: compared field by field, and asserted.

Run as root. Needs no image: the root is made of this machine's own files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import minictr as mc
from minictr.images.minimal import minimal


def isolation_of(box: mc.Container) -> mc.Isolation:
    with box.popen(["sleep", "60"]) as process:
        return mc.isolation(process)


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        rootfs = Path(directory) / "rootfs"
        minimal(str(rootfs), ("sleep",))
        box = mc.Container(rootfs)
        whole = isolation_of(box)
        print(f"a container          {whole}")
        print(f"this process         {mc.isolation()}")

        print("two of the same      differ in", "something" if whole.diff(isolation_of(box)) else "nothing")
        for name in ("no_new_privs", "capabilities", "ipc", "readonly_paths"):
            other = isolation_of(box.without(name))
            fields = [row.name for row in whole.diff(other) if not row.name.startswith(("kernel_files", "mounts"))]
            print(f"without {name:14} other in {', '.join(fields)}")

        whole.assert_at_least("default")  # a test that fails closed: what cannot be read counts as missing
        print("the default profile  holds, as asserted")
        try:
            isolation_of(box.without("no_new_privs", "pid")).assert_at_least("default")
        except mc.WeakerIsolation as err:
            print(err)


if __name__ == "__main__":
    main()
