"""Root of a container as nobody of the host, on a root file system that nobody had to chown. Needs root.

Proves: two containers at once share no id; root's files are root's inside, and on disk stay root's.
"""

from __future__ import annotations

import os
import sys
import tempfile

import minictr as mc
from minictr.images.minimal import minimal
from minictr.kernel.users import read_map


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        root = f"{directory}/root"
        minimal(root, ["sh", "@coreutils"])
        box = mc.Container(root).with_(mc.UserNamespace(auto=65536), mc.Idmap())
        with box.popen(["sleep", "60"]) as one, box.popen(["sleep", "60"]) as other:
            (first,), (second,) = (read_map(process.pid) for process in (one, other))
            apart = first[1] + first[2] <= second[1] or second[1] + second[2] <= first[1]
            print(f"both have ids 0 to {first[2] - 1} inside; apart outside: {apart}")
            owner = os.stat(f"/proc/{one.pid}/root/etc/passwd").st_uid
            print(f"/etc/passwd of the running one is its root's: {owner == first[1]}")
            for process in (one, other):
                process.kill()
        said = box.run(["sh", "-c", "echo x > /new; stat -c %U /new /etc/passwd"], capture_output=True, text=True)
        print(f"inside: {said.stdout.split()}; on disk the new file is user {os.stat(f'{root}/new').st_uid}'s")
        closed = box.with_(mc.DisableUserns())
        print(f"user namespaces inside: {closed.run(['cat', LIMIT], capture_output=True, text=True).stdout.strip()}")


LIMIT = "/proc/sys/user/max_user_namespaces"

if __name__ == "__main__":
    if os.geteuid():
        sys.exit("only root may take ids that are nobody's")
    main()
