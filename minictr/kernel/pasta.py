"""pasta(1): the network of a namespace, carried over sockets of whoever starts it. Debian: passt.

Options are those of Debian 12's (2023-03-09), which later ones have too. It goes into the background when all is set
up: that its first process leaves is how it says so, and what it wrote to standard error until then is why it did not.

It is told its namespace by a symbolic link of the caller's, and watches the link's directory: without the link it ends
(inotify(7)). The link leads to a descriptor that it inherits, so that it need not be allowed to look into the process
whose namespace it is. The link's name, in its command line, is what it is found by, whoever started it.
"""

from __future__ import annotations

import fcntl
import os
import select

from minictr.errors import MinictrError, StepFailed, Unsupported
from minictr.kernel.core import lib
from minictr.kernel.delegated import find as find_program
from minictr.kernel.handles import shut
from minictr.steps import Support

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

__all__ = ["end", "find", "probe", "program", "start"]

SIGKILL, ETIMEDOUT, EIO, EADDRINUSE, ENOENT, EACCES = 9, 110, 5, 98, 2, 13
DEFAULTED = (13, 17)  # SIGPIPE, which Python ignores and pasta then takes for a failure, and SIGCHLD
PROC = 0x9FA0  # PROC_SUPER_MAGIC, linux/magic.h
TUN = "/dev/net/tun"
WORDS = 300  # characters of what it said that are told
END_TIMEOUT = 5.0
PID_FILE, NETNS, USERNS, BEYOND = 3, 4, 5, 10  # descriptors as pasta has them, and the first of no meaning
# what it says -> (errno, cure)
CURES = (
    ("Failed to open tun socket", EACCES, f"it cannot open {TUN}: as root: modprobe tun; chmod 0666 {TUN}"),
    ("External interface not usable", ENOENT, "the host has no default route to copy: name a device with template=DEV"),
    ("Failed to bind any port", EADDRINUSE, "another program has it: publish another port"),
    (
        "Couldn't open network namespace",
        EACCES,
        "a security module may keep pasta from it (dmesg): its AppArmor profile",
    ),
    ("Couldn't open user namespace", EACCES, "a security module may keep pasta from it (dmesg): its AppArmor profile"),
    ("Couldn't create user namespace", EACCES, "this host restricts user namespaces: see docs/rootless.md"),
    ("unrecognized option", EIO, "this pasta is older than minictr knows: a newer package passt"),
    ("invalid option", EIO, "this pasta is older than minictr knows: a newer package passt"),
)


def program() -> str:
    """The path of pasta. Raises Unsupported where it is not installed."""
    path = find_program("pasta")
    if not path:
        raise Unsupported("pasta", "the program pasta is not here", "apt-get install passt")
    return path


def check_device() -> None:
    """Raise Unsupported where /dev/net/tun is missing or closed to us: pasta's own words do not say which."""
    if not os.path.exists(TUN):
        cure = f"as root: modprobe tun, or mkdir -p /dev/net; mknod -m 0666 {TUN} c 10 200"
        raise Unsupported("pasta", f"there is no {TUN}", cure)
    if not os.access(TUN, os.R_OK | os.W_OK):
        raise Unsupported("pasta", f"{TUN} is closed to you", f"as root: chmod 0666 {TUN}")


def start(link: str, netns: int, options: Sequence[str], *, userns: int = -1, timeout: float = 10.0) -> int:
    """Serve the network namespace NETNS, a descriptor, until LINK goes; pasta's pid, when all is set up.

    LINK is made. OPTIONS are pasta's. ``userns``: a descriptor of the user namespace that owns it; -1 for the caller's
    own, which only root can. ``timeout`` in seconds. As root it stays root, for it could not enter otherwise: with an
    empty root, a filter of its own and, where there is no userns, CAP_SYS_ADMIN. Raises StepFailed with what it said
    and the cure, Unsupported.
    """
    words = [program(), "--quiet", "--config-net", "--netns", link]
    words += ["--userns", f"/proc/self/fd/{USERNS}"] if userns >= 0 else []
    words += ["--runas", "0:0"] if os.geteuid() == 0 else []
    files: list[int] = []
    no_detection(netns, userns)
    try:
        os.symlink(f"/proc/self/fd/{NETNS}", link)
        files += (os.memfd_create(f"minictr-pasta-{name}", os.MFD_CLOEXEC) for name in ("said", "pid"))
        given = {1: files[0], 2: files[0], PID_FILE: files[1], NETNS: netns}
        if userns >= 0:
            given[USERNS] = userns
        status = _run([*words, "-P", f"/proc/self/fd/{PID_FILE}", *options], given, timeout)
        text = os.pread(files[0], 1 << 16, 0).decode("utf-8", "replace")
        number = os.pread(files[1], 32, 0).decode("ascii", "replace").strip()
    except OSError as err:
        raise StepFailed(f"run pasta by {link}", err.errno or 0) from err
    finally:
        for fd in files:
            shut(fd)
    if status == 0 and number.isdecimal():
        return int(number)
    end(link)
    raise failed(status, text)


def no_detection(netns: int, userns: int = -1) -> None:
    """Devices made in NETNS from now on use their IPv6 addresses at once: nobody else is on pasta's wire, and what
    comes in the first second or two would be lost. Nothing happens without IPv6. accept_dad, ip-sysctl.rst."""
    from minictr.kernel.child import Child

    path = "/proc/sys/net/ipv6/conf/default/accept_dad"
    fds = [fd for fd in (userns, netns) if fd >= 0]
    ops: list[tuple[str, dict[str, Any]]] = [("setns", {"fd": fd, "flags": 0}) for fd in fds]
    ops.append(("write_file", {"path": path, "data": "0\n", "magic": PROC}))
    with Child(0, ops, fds) as child:
        failed = child.attempt()
    if failed is not None and failed != ("write_file", ENOENT):
        raise StepFailed(f"{failed[0].replace('_', ' ')} {path} of the container", failed[1])


def _run(argv: list[str], given: dict[int, int], timeout: float) -> int | None:
    """The exit status of the process that begins, with the descriptors GIVEN by their number there; None where it was
    too slow, and is no more."""
    high = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, BEYOND) for number, fd in given.items()}  # no two meet
    actions: list[Any] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0)]
    actions += ((os.POSIX_SPAWN_DUP2, fd, number) for number, fd in high.items())
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        pid = os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsigmask=(), setsigdef=DEFAULTED)
    finally:
        for fd in high.values():
            shut(fd)
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        late = not poll.poll(timeout * 1000)
        if late:
            lib.mc_pidfd_send_signal(pidfd, SIGKILL, 0)
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            status = 0  # somebody else reaps our children: the file with its pid tells
    finally:
        shut(pidfd)
    return None if late else status


def failed(status: int | None, text: str) -> StepFailed:
    """The error for a pasta that left with STATUS after it had said TEXT."""
    if status is None:
        return StepFailed("pasta", ETIMEDOUT, cure="it was not ready in time: is the machine overloaded?")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Failed to send ")]
    for mark, number, cure in CURES:
        found = next((line for line in lines if mark in line), "")
        if found:
            return StepFailed(f"pasta: {found[:WORDS]}", number, cure=cure)
    return StepFailed(f"pasta: {(lines or ['it said nothing'])[0][:WORDS]}", EIO, cure=f"it left with status {status}")


def find(link: str) -> list[int]:
    """The pids of all that serve what LINK leads to: by their command line, of which it is a word."""
    wanted, found = os.fsencode(link), []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb", buffering=0) as file:
                words = (file.read(1 << 14) or b"").split(b"\0")
        except OSError:
            continue
        if wanted in words and words[0].rpartition(b"/")[2].startswith(b"pasta"):
            found.append(int(name))
    return found


def end(link: str) -> bool:
    """LINK goes, and who serves by it; whether there was one. Once it returns their ports are free again.

    Raises StepFailed for a link that cannot be removed, and for a process that does not go.
    """
    serving = _serving(link)  # first: one that ends by itself loses its command line before its sockets
    try:
        try:
            os.unlink(link)
            there = True
        except FileNotFoundError:
            there = False
        except OSError as err:
            raise StepFailed(f"remove {link}", err.errno or 0) from err
        for pid, pidfd in serving.items():
            lib.mc_pidfd_send_signal(pidfd, SIGKILL, 0)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(END_TIMEOUT * 1000):
                raise StepFailed(f"end pasta, process {pid}", ETIMEDOUT, cure="the kernel holds it")
    finally:
        for pidfd in serving.values():
            shut(pidfd)
    return there or bool(serving)


def _serving(link: str) -> dict[int, int]:
    """Pid -> pidfd of those that :func:`find` finds: each still is that one once its pidfd is held."""
    held = {}
    for pid in find(link):
        pidfd = int(lib.mc_pidfd_open(pid, 0))
        if pidfd >= 0:
            held[pid] = pidfd
    still = set(find(link)) if held else set()
    for pid in held.keys() - still:
        shut(held.pop(pid))
    return held


def probe() -> dict[str, Support]:
    """pasta: started once for a network namespace that goes at once."""
    try:
        program()
        check_device()
        _try_out()
    except Unsupported as err:
        return {"pasta": Support(False, err.reason, err.cure)}
    except StepFailed as err:
        return {"pasta": Support(False, err.what, err.cure)}
    except MinictrError as err:
        return {"pasta": Support(False, str(err))}
    return {"pasta": Support(True)}


def _try_out() -> None:
    import tempfile

    from minictr.kernel.child import Child
    from minictr.kernel.trials import CLONE_NEWUSER, NEWNET
    from minictr.kernel.users import write_gid_map, write_uid_map

    with tempfile.TemporaryDirectory(prefix="minictr-probe-") as directory, Child(CLONE_NEWUSER | NEWNET) as child:
        write_uid_map(child.pid, "")
        write_gid_map(child.pid, "", "deny")
        link = os.path.join(directory, "netns")
        options = ["-t", "none", "-u", "none", "-T", "none", "-U", "none"]
        files = [os.open(f"/proc/{child.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "user")]
        try:
            start(link, files[0], options, userns=files[1], timeout=5)
        finally:
            end(link)
            for fd in files:
                shut(fd)
