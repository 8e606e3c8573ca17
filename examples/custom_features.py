"""A container put together feature by feature, from nothing. Needs root.

Proves: each feature adds what it says and nothing else; the plan shows it before anything is done.
"""

from __future__ import annotations

import os
import tempfile

import minictr as mc
from minictr.images.minimal import minimal


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        image = minimal(f"{work}/root", ["bash", "@coreutils"]).directory
        box = mc.Container(image, features=[mc.MountNamespace(), mc.PivotRoot(), mc.Env()])
        print(f"the least: {len(box.plan())} steps; processes seen: {seen(box)}")

        box = box.with_(mc.PidNamespace(), mc.Proc())
        print(f"with pid and proc: processes seen: {seen(box)}")

        box = box.with_(mc.UtsNamespace(), mc.Hostname("lab"))
        inside = box.run(["uname", "-n"], stdout=mc.PIPE, text=True).stdout.strip()
        outside = "as before" if os.uname().nodename != inside else inside
        print(f"with uts and hostname: {inside} inside, {outside} outside")

        box = box.with_(mc.Identity("1234:5678"), mc.Umask(0o077), mc.Cwd("/tmp"))
        shown = box.run(["bash", "-c", "id -u; id -g; umask; pwd"], stdout=mc.PIPE, text=True).stdout.split()
        print(f"with user, umask and cwd: {' '.join(shown)}")

        written = box.with_(mc.Overlay()).run(["bash", "-c", "echo x > /tmp/x; cat /tmp/x"], stdout=mc.PIPE).stdout
        print(f"with overlay: written {written!r}, in the image afterwards: {os.listdir(f'{image}/tmp')}")

        print("and what the last feature added to the plan:")
        print(box.plan().diff(box.with_(mc.ReadonlyRoot()).plan()))


def seen(box: mc.Container) -> int:
    """How many processes /proc shows."""
    names = box.run(["ls", "/proc"], stdout=mc.PIPE, text=True).stdout.split()
    return sum(name.isdecimal() for name in names)


if __name__ == "__main__":
    main()
