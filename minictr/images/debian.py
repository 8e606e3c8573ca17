"""A Debian root file system from the network, by mmdebstrap(1), from the mirrors this host's apt uses."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import stat
import subprocess
from typing import TYPE_CHECKING

from minictr.errors import MinictrError, SpecError, Unsupported
from minictr.images import apt
from minictr.images.staging import Built, check_target, silent, staging

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from minictr.images.staging import Progress, Stage

SUITE = re.compile(r"[a-z][a-z0-9.+-]*")
# deb-control(5) Package, with what apt-get(8) takes behind it: :architecture, =version or /suite.
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?(?:=[A-Za-z0-9.+:~-]+|/[a-z0-9.+-]+)?")
MIRROR = re.compile(r"[a-z][a-z0-9+.-]*://\S+|deb (?:\[[^]]*\] )?\S+ \S+( \S+)*")
VARIANTS = (
    "minbase",
    "essential",
    "apt",
    "required",
    "buildd",
    "important",
    "standard",
    "debootstrap",
    "custom",
    "extract",
)
# The host's way to the archives: in the image while it is built, taken there by a variable of the hooks' environment.
CONF = "MINICTR_APT_CONF"
PUT_CONF = f'printf %s "${CONF}" >"$1"/etc/apt/apt.conf.d/90minictr-build'
DROP_CONF = 'rm -f -- "$1"/etc/apt/apt.conf.d/90minictr-build'
PATIENCE = 10  # seconds for mmdebstrap to clean up when it is told to end
CURES = (
    ("Unable to locate package", "check the name, and whether the suite has it"),
    ("has no installation candidate", "check the name, and whether the suite has it"),
    ("does not have a Release file", "check the suite's name, or name another mirror"),
    ("404", "check the suite's name, or name another mirror"),
    ("NO_PUBKEY", "install debian-archive-keyring"),
    ("Could not resolve", "check the network and apt's proxy, or name another mirror"),
    ("onnect", "check the network and apt's proxy, or name another mirror"),
    ("No space left", "make room, or name a directory on another file system"),
)


def debian(
    directory: str,
    suite: str = "bookworm",
    *,
    include: Sequence[str] = (),
    variant: str = "minbase",
    mirror: str | None = None,
    progress: Progress = silent,
) -> Built:
    """Make DIRECTORY, absent or empty, a Debian system of SUITE with the packages of ``variant`` and ``include``.

    ``mirror``: a URL, or a line as in sources.list(5); None takes the host's own sources. Proxies, certificates and
    logins of the host's apt are used, and not left in the image. ``progress`` is given mmdebstrap's lines.

    Raises SpecError (names, target), Unsupported (no mmdebstrap, not root), MinictrError with mmdebstrap's reason.
    Nothing is left of a failure.
    """
    _check(suite, include, variant, mirror)
    check_target(directory)
    program = shutil.which("mmdebstrap")
    if program is None:
        raise Unsupported("debian", "mmdebstrap is not installed", "apt-get install mmdebstrap")
    if os.geteuid() != 0:
        raise Unsupported("debian", "a system with its own users can only be made by root", "run it as root")
    sources = "" if mirror else apt.sources(suite)  # without any, mmdebstrap takes deb.debian.org
    with staging(directory, mode=0o755) as stage:
        command = [program, "--mode=root", "--format=directory", f"--variant={variant}"]
        command += [f"--include={','.join(dict.fromkeys(include))}"] if include else []
        command += [f"--setup-hook={PUT_CONF}", f"--customize-hook={DROP_CONF}"]
        command += [suite, stage.path, *([mirror] if mirror else ["-"] if sources else [])]
        _run(command, stage, sources, progress)
        files, size = _measure(stage.path)
        notes = _missing_keys(sources, stage.path)
    return Built(stage.target, files, size, notes)


def _check(suite: str, include: Sequence[str], variant: str, mirror: str | None) -> None:
    if not SUITE.fullmatch(suite):
        raise SpecError(f"--suite {suite!r}: not the name of a Debian release, such as bookworm")
    if isinstance(include, str):
        raise SpecError(f"include: a list of package names is needed, not the text {include!r}")
    wrong = [name for name in include if not PACKAGE.fullmatch(name)]
    if wrong:
        raise SpecError(f"--include: not a package name: {', '.join(map(repr, wrong))}")
    if variant not in VARIANTS:
        raise SpecError(f"--variant {variant!r}: choose one of {', '.join(VARIANTS)}")
    if mirror is not None and not MIRROR.fullmatch(mirror):
        raise SpecError(f"--mirror {mirror!r}: give a URL, or a line that starts with 'deb '")


def _missing_keys(sources: str, root: str) -> tuple[str, ...]:
    """A note for each key file that the sources name and only the host has."""
    names = dict.fromkeys(re.findall(r"^Signed-By: (/\S+)$", sources, re.MULTILINE))
    lacking = [name for name in names if not os.path.lexists(root + name)]
    return tuple(f"apt in there needs {name}, which its sources name: copy it from the host" for name in lacking)


def _run(command: list[str], stage: Stage, sources: str, progress: Progress) -> None:
    """Run mmdebstrap in a mount namespace of its own: whatever it mounts is gone when it ends, however it ends."""
    unshare = shutil.which("unshare")
    prefix = [unshare, "--mount", "--propagation=private", "--"] if unshare else []
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive", CONF: apt.settings()}
    lines: list[str] = []
    with (
        _memory(sources) as stdin,
        subprocess.Popen(
            [*prefix, *command],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,  # a Ctrl-C is ours to pass on, once
            pass_fds=(stage.fd,),  # the lock of the stage lives as long as mmdebstrap, even if we are killed
        ) as process,
        _ended(process),
    ):
        assert process.stderr is not None
        for line in process.stderr:
            text = line.strip()
            if text.startswith("I: "):
                if not text.startswith(("I: running --", "I: main()")):  # our own hooks, and how it ends
                    progress(text[3:])
            elif text:
                lines = [*lines[-200:], text]
    if process.returncode != 0:
        raise MinictrError(f"mmdebstrap failed{_reason(lines, process.returncode)}")


@contextlib.contextmanager
def _memory(text: str) -> Iterator[int]:
    """An fd to read TEXT from: no file that a killed build could leave behind."""
    fd = os.memfd_create("minictr-sources")
    try:
        os.pwrite(fd, text.encode(errors="surrogateescape"), 0)
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """Nothing of the process group outlives the block when it is left by an exception."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise


def _reason(lines: list[str], code: int) -> str:
    """The first error that apt or dpkg gave, rather than mmdebstrap's remark that a command failed."""
    errors = [line[3:] for line in lines if line.startswith("E: ")] or [
        line for line in lines if line.startswith(("dpkg: error", "Err:", "unshare:"))
    ]
    reason = next((text for text in errors if not re.search(r"^\S+( \S+)* failed(:|$)|terminated", text)), "")
    reason = reason or (errors or lines[-1:] or [f"with code {code}"])[0]
    cure = next((cure for sign, cure in CURES if sign in reason), "")
    return f": {reason.rstrip('.')}" + (f"; {cure}" if cure else "")


def _measure(path: str) -> tuple[int, int]:
    """How many regular files are below PATH, and their bytes; a file with several names counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for _top, _directories, names, fd in os.fwalk(path):
        for name in names:
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISREG(info.st_mode):
                sizes[info.st_dev, info.st_ino] = info.st_size
    return len(sizes), sum(sizes.values())
