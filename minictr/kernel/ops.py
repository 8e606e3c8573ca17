"""The flat op array: one table, one encoder, for the child and for this thread.

The C interpreter (``_core/interp.c``) is compiled twice: into the static program that prepares a container, and into
the extension module. So :func:`execute` runs, in the calling thread, exactly the code that a container's start runs;
every function of ``minictr.kernel`` with plain arguments stands on it.

``SIGNATURES`` is the whole contract: the call's name is the C enumerator ``MC_OP_<NAME>``, and each parameter is
``name:type`` with type

====  =====================================================================================================
i     integer (also flags); next free ``arg[]``
f     file descriptor: an int, or the name of a descriptor the executor owns ("barrier"); next free ``arg[]``
h     handle: the name of a slot that an earlier op of the same program filled; next free ``arg[]``
s     str or bytes path or word, NUL-terminated in the blob; next free ``str[]``; "" is offset 0 = absent
m     list of handles: slot numbers as int32; next free ``str[]`` for the place, next free ``arg[]`` for the count
b     bytes; next free ``str[]`` for the place, next free ``arg[]`` for the length
l     list of str or bytes: NUL-terminated one after another; ``str[]`` for the place, ``arg[]`` for the count
v     like l, with room for the array of pointers that execve(2) wants in front
====  =====================================================================================================

``tests/house`` holds the table and the C enum to one another.
"""

from __future__ import annotations

import struct
import sys

from minictr.errors import StepFailed
from minictr.kernel.core import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

# flags of mount, attach, remount and chdir (enum mc_path_flag)
MKDIR, MKFILE, RECURSIVE, NOFOLLOW = 1, 2, 4, 8
ETC_TREE, ETC_SEALED = 1, 2  # flags of etc_file (enum mc_etc_flag)
NARROW = 1  # flag of landlock_path (enum mc_landlock_flag)

SIGNATURES: dict[str, tuple[str, ...]] = {
    # --- start and synchronisation ---
    "pdeathsig": ("signal:i",),  # prctl(2) PR_SET_PDEATHSIG
    "barrier": ("fd:f",),  # wait for one byte; end of file means the parent died
    "cgroup_enter": ("fd:f",),  # write "0" to a v1 group's `tasks`; a negative descriptor: it was born there (v2)
    "subreaper": (),  # prctl(2) PR_SET_CHILD_SUBREAPER
    "sigreset": (),  # every signal to SIG_DFL, empty mask
    # --- namespaces ---
    "unshare": ("flags:i",),  # unshare(2)
    "setns": ("fd:f", "flags:i"),  # setns(2); the descriptor, of a namespace or a pidfd (Linux 5.8), is closed
    "setns_time": (),  # into the time namespace that was unshared, which else is for children only
    "enter_root": ("fd:f",),  # fchdir, chroot; the descriptor is closed
    # --- mounts: host paths (before the root is changed) ---
    "propagation": ("path:s", "flags:i"),  # mount(2) with MS_REC|MS_PRIVATE and so on
    "open_tree": ("into:h", "path:s", "flags:i"),  # open_tree(2) OPEN_TREE_CLONE|flags; Linux 5.2
    "fsmount": ("into:h", "fstype:s", "options:l", "attr:i"),  # fsopen, fsconfig, fsmount; Linux 5.2
    "adopt": ("into:h", "fd:f"),  # an inherited descriptor becomes a handle
    "overlay": ("into:h", "lower:l", "upper:s", "work:s", "options:l", "attr:i"),  # upper "": a private tmpfs holds it
    "overlay_trees": ("into:h", "lower:m", "upper:m", "options:l"),  # of trees; upper is [] or [base, upper, work]
    "setattr": ("tree:h", "set:i", "clear:i", "propagation:i", "userns:f", "flags:i"),  # mount_setattr(2); Linux 5.12
    # --- the root ---
    "root_attach": ("tree:h", "path:s"),  # move_mount the tree over PATH, the later root, and enter it
    "pivot_root": (),  # pivot_root(".", "."), umount2(".", MNT_DETACH), chdir("/")
    "chroot": ("path:s",),  # chdir, chroot
    # --- mounts: paths inside the root, by openat2(RESOLVE_IN_ROOT|RESOLVE_NO_MAGICLINKS) ---
    "mount": ("fstype:s", "path:s", "options:l", "attr:i", "flags:i"),  # flags: MOUNT_* below
    "attach": ("tree:h", "path:s", "flags:i"),  # move_mount a tree onto PATH
    "verify_mount": ("path:s",),  # what an earlier mount or attach put at PATH is what PATH means now; Linux 5.8
    "mask": ("path:s",),  # /dev/null over a file, an empty read-only tmpfs over a directory
    "readonly_path": ("path:s",),  # a read-only recursive bind of PATH over itself
    "remount": ("path:s", "set:i", "clear:i", "flags:i"),  # mount_setattr(2) on what is mounted at PATH
    "mkdir": ("path:s", "mode:i", "uid:i", "gid:i"),
    "mknod": ("path:s", "mode:i", "major:i", "minor:i"),
    "symlink": ("target:s", "path:s"),
    "write_file": ("path:s", "data:b", "magic:i"),  # magic: the file system it must be on (fstatfs), 0 for any
    "boot_id": ("path:s",),  # a random one over procfs' boot_id, from a new file at PATH
    # PATH is the file DATA, or what SOURCE has, made in the directory DIR ("": a tmpfs); flags: ETC_* above;
    # BESIDE: names of all that may be missing where PATH is
    "etc_file": ("path:s", "data:b", "dir:s", "source:f", "flags:i", "beside:l"),
    # --- host name, network, process attributes ---
    "sethostname": ("hostname:s",),
    "setdomainname": ("domainname:s",),
    "loopback_up": (),  # SIOCSIFFLAGS on lo
    "rlimit": ("resource:i", "soft:i", "hard:i"),  # prlimit(2); RLIM_INFINITY is -1
    "umask": ("mask:i",),
    "chdir": ("path:s", "flags:i"),  # flags: MOUNT_MKDIR creates it; verified to be inside the root afterwards
    "personality": ("persona:i",),
    "keyring": ("keyring:s",),  # keyctl(2) KEYCTL_JOIN_SESSION_KEYRING
    "exec_label": ("module:s", "order:s", "label:s"),  # ORDER to attr/exec, which then must read as LABEL
    "setsid": (),
    "console": ("socket:f", "uid:i", "flags:i"),  # a terminal of the container's own devpts; its master goes to SOCKET
    "stdio": ("stdin:f", "stdout:f", "stderr:f"),
    # --- init ---
    "init": ("status_fd:f", "flags:i"),  # fork: the parent stays as reaping init, the child goes on with the next op
    "fork": ("flags:i",),  # go on in a child, born in the pid namespace joined; flags: SIBLING, ORPHAN
    # --- identity and privilege ---
    "setgroups": ("groups:b",),  # array of uint32
    "setresgid": ("gid:i",),
    "setresuid": ("uid:i",),
    "keep_caps": ("value:i",),  # prctl(2) PR_SET_KEEPCAPS
    "bounding": ("keep:i",),  # drop every capability not in KEEP, up to the kernel's last
    "capset": ("effective:i", "permitted:i", "inheritable:i"),
    "ambient": ("ambient:i",),  # clear all, then raise those in AMBIENT; Linux 4.3
    "securebits": ("on:i", "off:i"),  # prctl(2) PR_SET_SECUREBITS; the others stay
    "no_new_privs": (),
    "landlock_ruleset": ("into:h", "fs:i", "net:i", "scoped:i"),  # landlock_create_ruleset(2); Linux 5.13
    "landlock_path": ("ruleset:h", "path:s", "rights:i", "flags:i"),  # a rule; flags: NARROW, for what is no directory
    "landlock_port": ("ruleset:h", "port:i", "rights:i"),  # a rule; Linux 6.7
    "landlock_restrict": ("ruleset:h", "flags:i"),  # landlock_restrict_self(2)
    # ask: read the mode back; a listener goes to a socket: direct, or by a thread that the filter does not hold
    "seccomp": ("program:b", "flags:i", "ask:i", "listener:f", "direct:i"),
    # --- verify, then go ---
    "verify_caps": ("effective:i", "permitted:i", "inheritable:i", "bounding:i", "ambient:i"),
    "verify_ids": ("uid:i", "gid:i", "groups:b"),
    "verify_label": ("module:s", "label:s"),
    "verify_securebits": ("on:i", "off:i"),
    "verify_no_new_privs": (),
    "verify_no_userns": (),  # unshare(2) CLONE_NEWUSER must fail with ENOSPC
    "verify_root": (),  # the root is a mount point of its own and the working directory is inside it
    "verify_paths": ("masked:i", "paths:l"),  # masked, or read-only (0): each that is there, as its step left it
    "hold": ("fd:f",),  # two-phase start: "h" on the report pipe, then wait for one byte
    "ready": ("preserve:i",),  # init is locked, the parent lives; descriptors from 3 + PRESERVE on close on exec
    "exec": ("argv:v", "env:v", "paths:l"),  # the first of PATHS that exists: execve(2) and no other call
}

MAX_SLOTS = int(lib.MC_MAX_SLOTS)
OP = struct.Struct("=I4B6q4IqQ")  # struct mc_op: kind, tolerate[4], arg[6], str[4], ret, end_ns
_KIND = {call: number for number, call in enumerate(SIGNATURES)}


def _layout(parameters: tuple[str, ...]) -> tuple[tuple[str, str, int, int], ...]:
    """Each parameter with the next free ``arg`` and ``str`` it takes."""
    rows, arg, text = [], 0, 0
    for parameter in parameters:
        name, _, kind = parameter.partition(":")
        rows.append((name, kind, arg, text))
        arg += kind in "ifhmblv"
        text += kind in "smblv"
    return tuple(rows)


LAYOUT = {call: _layout(parameters) for call, parameters in SIGNATURES.items()}


class Encoder:
    """Ops as bytes, with their blob and the numbering of their handles.

    ``fds`` names the descriptors that ops may mention by word. ``slots`` maps handle names to slot numbers, in order of
    first use.
    """

    def __init__(self, fds: Mapping[str, int] | None = None) -> None:
        self.ops = bytearray()
        self.blob = bytearray(8)  # offset 0 is the empty string
        self.fds = dict(fds or {})
        self.slots: dict[str, int] = {}
        self.fd_places: list[tuple[int, str]] = []  # where in ``ops`` a named descriptor stands
        self._texts: dict[bytes, int] = {b"": 0}

    def add(self, call: str, args: Mapping[str, Any], tolerate: Iterable[int] = ()) -> None:
        """Append one op. KeyError or TypeError here is a mistake in a feature, never in user input."""
        numbers, texts = [0] * 6, [0] * 4
        for name, kind, arg, text in LAYOUT[call]:
            value = args[name]
            if kind == "i":
                numbers[arg] = value
            elif kind == "s":
                texts[text] = self.text(value)
            elif kind == "f":
                numbers[arg] = self._fd(value, arg)
            elif kind == "h":
                numbers[arg] = self._slot(value)
            else:
                texts[text], numbers[arg] = self._block(kind, value)
        if len(args) != len(LAYOUT[call]):
            raise TypeError(f"{call}: unexpected {set(args) - {row[0] for row in LAYOUT[call]}}")
        accepted = (*tolerate, 0, 0, 0, 0)[:4]
        self.ops += OP.pack(_KIND[call], *accepted, *numbers, *texts, 0, 0)

    def text(self, value: str | bytes) -> int:
        """The offset of a NUL-terminated text, stored once."""
        data = _fsencode(value)
        offset = self._texts.get(data)
        if offset is None:
            offset = self._texts[data] = len(self.blob)
            self.blob += data + b"\0"
        return offset

    def _slot(self, name: str) -> int:
        return self.slots.setdefault(name, len(self.slots))

    def _fd(self, value: int | str, arg: int) -> int:
        if isinstance(value, int):
            return value
        self.fd_places.append((len(self.ops) + 8 + 8 * arg, value))
        return self.fds.get(value, -1)

    def _block(self, kind: str, value: Any) -> tuple[int, int]:
        """(offset, length or count) of bytes or of a packed list, aligned for what C makes of it."""
        self.blob += bytes(-len(self.blob) % 8)
        offset = len(self.blob)
        if kind == "m":
            for name in value:
                self.blob += self._slot(name).to_bytes(4, sys.byteorder)
            return offset, len(value)
        if kind == "b":
            data = _fsencode(value)
            self.blob += data
            return offset, len(data)
        if kind == "v":
            self.blob += bytes(8 * (len(value) + 1))
        for item in value:
            self.blob += _fsencode(item) + b"\0"
        return offset, len(value)


def _fsencode(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def execute(call: str, *, about: str = "", cure: str = "", **args: Any) -> int:
    """Run one op in the calling thread; its result (a descriptor for ops with ``into``).

    Raises :class:`minictr.errors.StepFailed` (an ``OSError``) naming the system call that failed and ABOUT.
    """
    encoder = Encoder()
    encoder.add(call, args)
    return run(encoder, about, cure)


def run(encoder: Encoder, about: str = "", cure: str = "") -> int:
    """Run the encoder's ops in the calling thread; the result of the last. Their handles stay open."""
    ops = ffi.new("struct mc_op[]", len(encoder.ops) // OP.size)
    ffi.memmove(ops, bytes(encoder.ops), len(encoder.ops))
    blob = ffi.new("char[]", bytes(encoder.blob))
    slots = ffi.new("int32_t[]", [-1] * MAX_SLOTS)
    failed, number = ffi.new("uint32_t *"), ffi.new("int32_t *")
    error = lib.mc_execute(ops, len(ops), blob, slots, failed, number)
    if error < 0:
        name = tuple(SIGNATURES)[ops[failed[0]].kind]
        raise StepFailed(what_failed(name, number[0], about), -error, cure=cure)
    return int(ops[len(ops) - 1].ret)


def what_failed(name: str, number: int, about: str) -> str:
    """``mount proc on /proc: move_mount`` and so on: op, object, and the system call if that is another word."""
    call = str(ffi.string(lib.mc_syscall_name(number)).decode())
    words = f"{name.replace('_', ' ')} {about}".rstrip()
    return words if not call or call == name else f"{words}: {call}"
