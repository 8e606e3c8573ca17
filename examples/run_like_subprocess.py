"""``run`` and ``popen`` as in the standard library's subprocess, in a container. Needs root.

Proves: exit code, output, input, timeout and a signal mean what they mean there; and the host is not seen from inside.
"""

from __future__ import annotations

import os
import tempfile

import minictr as mc
from minictr.images.minimal import minimal


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        box = mc.Container(minimal(f"{work}/root", ["bash", "@coreutils", "ps"]).directory)

        done = box.run(["bash", "-c", "uname -n; echo $$; ls /; exit 3"], capture_output=True, text=True)
        print(f"exit code {done.returncode}, host name {done.stdout.split()[0]}, process {done.stdout.split()[1]}")
        print(f"host name outside: {'another' if os.uname().nodename != done.stdout.split()[0] else 'the same'}")

        done = box.run(["tr", "a-z", "A-Z"], input="through a pipe\n", stdout=mc.PIPE, text=True)
        print(done.stdout.strip())

        done = box.run(["bash", "-c", "kill -9 $$"])
        print(f"kill -9 $$: returncode {done.returncode}, signal {done.signal}")

        try:
            box.run(["sleep", "60"], timeout=0.2)
        except mc.TimeoutExpired as expired:
            print(f"timeout: {expired}; killed by signal {expired.result.signal}")

        try:
            box.run(["no-such-program"])
        except mc.CommandNotFound as error:
            print(f"{type(error).__name__}, exit code {error.exit_code}")

        with box.popen(["cat"], stdin=mc.PIPE, stdout=mc.PIPE, text=True) as process:
            print(f"running: {process.poll() is None}, said: {process.communicate('hello')[0]}")


if __name__ == "__main__":
    main()
