"""A root file system from this host's own files, and a shell in it by chroot. Needs root.

Proves: bash and coreutils work with nothing but the files they need, and nothing else of the host is in there.
"""

from __future__ import annotations

import os
import subprocess
import tempfile

from minictr.images.minimal import minimal


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        built = minimal(os.path.join(work, "root"), ["bash", "@coreutils"])
        print(f"made from the host: {built.files} files, {built.bytes / (1 << 20):.1f} MiB")
        for script in (
            "echo the shell is $BASH_VERSION",
            "ls -m /",
            "id -un",
            "cut -d: -f1 /etc/passwd | paste -sd' '",
        ):
            environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
            command = ["chroot", built.directory, "/bin/bash", "-c", script]
            shown = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout.strip()
            print(f"{script:45} {shown}")


if __name__ == "__main__":
    main()
