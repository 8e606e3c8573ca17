"""A program is told no, and the caller is told why: which layer said so, and what would have allowed it.

Proves: a denial by the filter, by a missing capability, by a read-only mount and by a masked path are told apart; the
cure named is the cure; and what was not asked to be observed costs nothing and tells nothing.
"""

from __future__ import annotations

import tempfile

import minictr as mc
from minictr.images.minimal import minimal

SCRIPT = """
unshare -m true
mknod /tmp/null c 1 3
echo lab >/proc/sys/kernel/domainname
cat /proc/interrupts
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        minimal(f"{directory}/root", ["bash", "@coreutils", "unshare"])
        box = mc.Container(f"{directory}/root").with_(mc.Overlay())
        for denial in box.run(["bash", "-c", SCRIPT], explain_denials=True, capture_output=True).denials:
            print(f"{denial.layer:<16} {denial.operation}")
            print(f"{'':<16} {denial.errno or 'empty'}: {denial.why}; {denial.cure}")

        more = box.with_(box.spec().get("capabilities").replace(bounding=("MKNOD", "SYS_ADMIN")))
        answer = more.run(["bash", "-c", SCRIPT], explain_denials=True, capture_output=True)
        print("with both capabilities:", *(f"{denial.layer};" for denial in answer.denials))
        print("not observed:", box.run(["bash", "-c", SCRIPT], capture_output=True).denials)


if __name__ == "__main__":
    main()
