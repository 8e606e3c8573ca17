"""A machine where user 1000 has what users have: a name, delegated ids, XDG directories, devices.

It is a mount and a network namespace of this machine, held by a sleeping process. /dev/net/tun and /dev/fuse are open
to all in it, as udev makes them; the interpreter and minictr are bound where others than root may go. Outside of it
nothing is changed.

    remote 192.0.2.2, 2001:db8::2 ---- 192.0.2.1, 2001:db8::1 lab
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "network"))

from world import HERE, HERE6, PATIENCE, THERE, THERE6, World, namespace

UID = 1000
Done = subprocess.CompletedProcess
SETUP = """
set -e
lab=$1 root=$2
mount --make-rprivate /
mount -t tmpfs -o mode=755 lab "$lab"
for name in run home state bin python site root etc dev; do mkdir "$lab/$name"; done
chown 1000:1000 "$lab/run" "$lab/home" "$lab/state"
chmod 700 "$lab/run" "$lab/home" "$lab/state"
mount --bind "$3" "$lab/python"
mount --bind "$4" "$lab/site"
mount --bind "$root" "$lab/root"
give() { mount --bind "$lab/$1" "$2"; }
if [ ! -e /dev/net/tun ]; then mkdir -p /dev/net; touch /dev/net/tun; fi
mknod -m 666 "$lab/dev/tun" c 10 200
give dev/tun /dev/net/tun
if [ -e /dev/fuse ]; then mknod -m 666 "$lab/dev/fuse" c 10 229; give dev/fuse /dev/fuse; fi
printf 'root:x:0:0::/root:/bin/sh\\nlab:x:1000:1000::%s/home:/bin/sh\\nnobody:x:65534:65534::/:/bin/false\\n' "$lab" \\
    >"$lab/etc/passwd"
echo lab:300000:65536 >"$lab/etc/subid"
echo nameserver 127.0.0.1 >"$lab/etc/resolv.conf"
give etc/passwd /etc/passwd
give etc/resolv.conf /etc/resolv.conf
for kind in uid gid; do
    [ -e "/etc/sub$kind" ] || touch "/etc/sub$kind"
    give etc/subid "/etc/sub$kind"
done
ip link set lo up
echo ready
exec sleep 1000
"""
ENTRY = "import sys; sys.path.append({site!r}); sys.argv[0] = 'minictr'; from minictr.cli.entry import leave; leave()"


class Lab(World):
    """``host``: a pid that holds it. ``place``: its directory, seen in it alone. World's verbs act as root."""

    def __init__(self, host: int, remote: int, place: Path) -> None:
        self.place = place
        python = place / "python/bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
        cli = [str(python), "-IS", "-c", ENTRY.format(site=str(place / "site"))]
        super().__init__(host, remote, place / "state-of-root", cli, place / "root")
        self.env = {
            "HOME": f"{place}/home",
            "XDG_RUNTIME_DIR": f"{place}/run",
            "PATH": f"{place}/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            **{key: value for key, value in os.environ.items() if key == "MINICTR_TEST_SESSION"},
        }

    def inside(self, pid: int, command: Any) -> list[str]:
        """In the network of PID, and for the lab's own in its mounts."""
        mounts = [f"--mount=/proc/{pid}/ns/mnt"] if pid == self.host else []
        return ["nsenter", f"--net=/proc/{pid}/ns/net", *mounts, "--", *command]

    def user(self, *words: object, before: str = "", env: dict[str, str] | None = None, **options: Any) -> Done[str]:
        """``minictr WORDS`` as user 1000. BEFORE: what root's shell does first, in mounts of this command alone."""
        command = [*self.as_user(), *self.cli, *map(str, words)]
        if before:
            command = ["unshare", "-m", "sh", "-ec", f'{before}; exec "$@"', "sh", *command]
        options = {"capture_output": True, "text": True, "timeout": PATIENCE, "stdin": subprocess.DEVNULL, **options}
        return subprocess.run(
            self.inside(self.host, command), check=False, env={**self.env, **(env or {})}, cwd="/", **options
        )

    def as_user(self) -> list[str]:
        return ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--"]

    def ok(self, *words: object, **options: Any) -> str:
        """What it prints; its failure is ours."""
        done = self.user(*words, **options)
        assert done.returncode == 0, (words, done)
        return str(done.stdout).strip()

    def refused(self, *words: object, **options: Any) -> str:
        """The one line it says, with exit code 125."""
        done = self.user(*words, **options)
        assert (done.returncode, done.stdout) == (125, ""), done
        assert done.stderr.count("\n") == 1, done.stderr
        return str(done.stderr)

    def box(self, *options: object) -> list[object]:
        """Options of a container of the lab's root; a limit of processes needs a group that is his."""
        return ["--without", "pids", "--overlay", "--rootfs", self.rootfs, *options]

    def up(self, name: str, *options: object, command: tuple[str, ...] = ("sleep", "1000")) -> int:
        """A container of the user's in the background: the pid of its first process."""
        self.ok("run", "-d", "--name", name, *self.box(*options), "--", *command)
        return self.pid_of(name)

    def pid_of(self, name: str) -> int:
        return int(self.ok("inspect", "-f", "{{.State.Pid}}", name))

    def containers(self) -> list[Path]:
        """Directories of containers that the user has."""
        found = self.run("find", self.place / "run", "-mindepth", "3", "-maxdepth", "3", "-path", "*/containers/*")
        return [Path(line) for line in found.splitlines()]

    def pastas(self) -> dict[int, list[str]]:
        """Pid -> command line of every pasta that serves a container of the lab's."""
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"pasta") and any(word.startswith(os.fsencode(self.place)) for word in words):
                found[int(path.parent.name)] = [word.decode() for word in words]
        return found

    def clean(self) -> None:
        """No container of the user's, and no pasta, is left."""
        for row in json.loads(self.ok("ps", "-a", "--format", "json")):
            self.ok("rm", "-f", row["ID"])


@contextmanager
def lab(rootfs: Path) -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="minictr-test-") as directory, namespace() as remote:
        place = Path(directory)
        place.chmod(0o755)
        words = [str(place), str(rootfs), sys.base_prefix, sysconfig.get_path("platlib")]
        command = ["unshare", "-m", "-n", "sh", "-c", SETUP, "sh", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                has6 = os.path.exists("/proc/sys/net/ipv6")  # User-mode Linux has none
                made = Lab(process.pid, remote, place)
                made.run("ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire0", "netns", remote)
                for pid, four, six in ((made.host, HERE, HERE6), (remote, THERE, THERE6)):
                    made.run("ip", "address", "add", f"{four}/24", "dev", "wire0", pid=pid)
                    if has6:
                        made.run("ip", "address", "add", f"{six}/64", "dev", "wire0", "nodad", pid=pid)
                    made.run("ip", "link", "set", "wire0", "up", pid=pid)
                made.run("ip", "route", "add", "default", "via", THERE)
                if has6:
                    made.run("ip", "-6", "route", "add", "default", "via", THERE6)
                try:
                    yield made
                finally:
                    made.clean()
            finally:
                process.kill()
