"""Attributes of the process: host name, environment, working directory, limits, session, terminal, init."""

from __future__ import annotations

from minictr.errors import SpecError
from minictr.features.check import choice, frozen, inside, integer, sequence, shown, word
from minictr.features.namespaces import PROC_SUPER_MAGIC, own
from minictr.features.tables import RESOURCES, SIGNALS, signal_number
from minictr.steps import ATTACH, LOCK, SETUP, Context, Feature, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import ClassVar

HOST_NAME_MAX = 64  # linux/utsname.h, __NEW_UTS_LEN
PER_LINUX = 0x0000  # linux/personality.h
PER_LINUX32 = 0x0008  # linux/personality.h
ADDR_NO_RANDOMIZE = 0x0040000  # linux/personality.h
RLIM_INFINITY = -1  # asm-generic/resource.h, as a signed number
RLIM_MAX = (1 << 63) - 1
MKDIR = 1  # enum mc_path_flag of the core
DIE_WITH_PARENT = 1  # enum mc_init_flag of the core
CONSOLE_BIND = 1  # enum mc_console_flag of the core
ARG_STRLEN_MAX = 32 * 4096 - 1  # MAX_ARG_STRLEN, linux/binfmts.h: one string of argv or the environment
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # docker's default


class Hostname(Feature):
    """The host name of its own UTS namespace. sethostname(2)."""

    NAME = "hostname"
    SUMMARY = "its own host name"
    NEEDS = (("uts", "it would rename the host"),)

    hostname: str

    def check(self) -> None:
        word(self.hostname, "hostname", limit=HOST_NAME_MAX)
        for label in self.hostname.split("."):
            letters = label.replace("-", "").replace("_", "")
            if not label or not letters.isascii() or not letters.isalnum() or label[0] == "-" or label[-1] == "-":
                raise SpecError(f"hostname: {shown(self.hostname)} is not letters, digits and '-' between dots")

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("sethostname", SETUP, self.hostname, hostname=self.hostname)


class Domainname(Feature):
    """The NIS domain name of its own UTS namespace; not what DNS calls a domain. setdomainname(2)."""

    NAME = "domainname"
    SUMMARY = "its own NIS domain name"
    NEEDS = (("uts", "it would rename the host's domain"),)

    domainname: str

    def check(self) -> None:
        word(self.domainname, "domainname", limit=HOST_NAME_MAX)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("setdomainname", SETUP, self.domainname, domainname=self.domainname)


class Env(Feature):
    """The environment of the program. environ(7).

    With ``clear`` it begins as docker's does: PATH, HOSTNAME and TERM where there is a host name and a terminal, HOME
    of the user where known. Without, it begins as the caller's. ``variables`` come on top. It has no step of its own:
    the environment is an argument of execve.
    """

    NAME = "env"
    SUMMARY = "a clean environment, and the variables in it"

    variables: tuple[tuple[str, str], ...] = ()
    clear: bool = True

    def check(self) -> None:
        pairs = []
        for pair in sequence(self.variables, "env variables"):
            two = sequence(pair, "env variable")
            if len(two) != 2:
                raise SpecError(f"env: {shown(pair)} is not (name, value)")
            pairs.append(checked_variable(*two))
        frozen(self, "variables", tuple(pairs))

    def steps(self, ctx: Context) -> Iterator[Step]:
        return iter(())

    def environment(self, ctx: Context, caller: tuple[str, ...]) -> dict[str, str]:
        """Name to value, in order. CALLER is the caller's environment as ``NAME=value``."""
        found = caller_environment(caller)
        if self.clear:
            found = {"PATH": PATH}
            if ctx.has("hostname"):
                found["HOSTNAME"] = ctx.get("hostname").hostname
            if ctx.has("tty"):
                found["TERM"] = "xterm"
        found.update(self.variables)
        return found


def caller_environment(caller: tuple[str, ...]) -> dict[str, str]:
    """Name to value of ``NAME=value`` strings; strings without a name are dropped, as exec tools do."""
    split = (variable.partition("=") for variable in caller)
    return {name: value for name, equals, value in split if name and equals}


def checked_variable(name: object, value: object) -> tuple[str, str]:
    """A name without "=" and a value; both without NUL. Values may hold newlines."""
    word(name, "env name", limit=ARG_STRLEN_MAX)
    if not isinstance(name, str) or "=" in name:
        raise SpecError(f"env: {shown(name)} holds '=': a name ends there")
    if not isinstance(value, str):
        raise SpecError(f"env {name}: {shown(value)} is not a string")
    word(value.replace("\n", " "), f"env {name}", limit=ARG_STRLEN_MAX - len(name) - 1, empty=True)
    return name, value


class Cwd(Feature):
    """The working directory, made if missing. chdir(2).

    Made and entered as root, and entered again as the user, who must be allowed in; that it lies inside the root is
    verified each time (CVE-2024-21626).
    """

    NAME = "cwd"
    SUMMARY = "the working directory, made if missing"

    path: str

    def check(self) -> None:
        frozen(self, "path", inside(self.path, "cwd"))

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("chdir", SETUP, f"{self.path} made if missing", path=self.path, flags=MKDIR)
        yield self.step("chdir", LOCK, self.path, path=self.path, flags=0)


class Umask(Feature):
    """The mode bits taken from what the program creates. umask(2)."""

    NAME = "umask"
    SUMMARY = "the mode bits taken from files the program creates"

    mask: int = 0o022

    def check(self) -> None:
        integer(self.mask, "umask", 0, 0o777)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("umask", LOCK, f"{self.mask:04o}", mask=self.mask)


class Rlimits(Feature):
    """Resource limits: rows of (name, soft, hard), -1 for no limit. setrlimit(2).

    Raising a hard limit above the caller's needs CAP_SYS_RESOURCE.
    """

    NAME = "rlimits"
    SUMMARY = "resource limits, as with ulimit"

    limits: tuple[tuple[str, int, int], ...]

    def check(self) -> None:
        rows = tuple(sequence(row, "rlimits row") for row in sequence(self.limits, "rlimits"))
        for row in rows:
            if len(row) != 3:
                raise SpecError(f"rlimits: {shown(row)} is not (name, soft, hard)")
            name, soft, hard = row
            choice(name, "rlimits", RESOURCES)
            integer(soft, f"rlimits {name} soft", RLIM_INFINITY, RLIM_MAX)
            integer(hard, f"rlimits {name} hard", RLIM_INFINITY, RLIM_MAX)
            if hard != RLIM_INFINITY and (soft == RLIM_INFINITY or soft > hard):
                raise SpecError(f"rlimits {name}: the soft limit {soft} is above the hard limit {hard}")
        names = [row[0] for row in rows]
        for name in names:
            if names.count(name) > 1:
                raise SpecError(f"rlimits: {name} is given twice")
        frozen(self, "limits", rows)

    def steps(self, ctx: Context) -> Iterator[Step]:
        for name, soft, hard in self.limits:
            told = " ".join("unlimited" if n == RLIM_INFINITY else str(n) for n in (soft, hard))
            yield self.step("rlimit", LOCK, f"{name} {told}", resource=RESOURCES[name], soft=soft, hard=hard)


class OomScoreAdj(Feature):
    """Who is killed first when memory runs out: -1000 never, 1000 first. Linux 2.6.36, proc_pid_oom_score_adj(5).

    Going below the caller's own needs CAP_SYS_RESOURCE.
    """

    NAME = "oom_score_adj"
    SUMMARY = "who is killed first when memory runs out"

    value: int

    def check(self) -> None:
        integer(self.value, "oom_score_adj", -1000, 1000)

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("oom_score_adj", ATTACH, str(self.value), value=self.value)


# sysctl(8) keys that belong to the ipc namespace: ipc_namespaces(7), sysvipc(7)
IPC_SYSCTLS = frozenset(
    f"kernel/{name}"
    for name in (
        "auto_msgmni msg_next_id msgmax msgmnb msgmni sem sem_next_id shm_next_id shm_rmid_forced shmall shmmax shmmni"
    ).split()
)


def sysctl_path(key: str) -> str:
    """``net/ipv4/ip_forward`` from either spelling. As in sysctl(8): the first of "." and "/" is what separates, and
    the other one is then a letter or, for "/" among dots, stands for a dot (``net.ipv4.conf.eth0/5.forwarding``)."""
    dots, slashes = key.find("."), key.find("/")
    if dots != -1 and (slashes == -1 or dots < slashes):
        key = key.replace("/", "\0").replace(".", "/").replace("\0", ".")
    return key


def sysctl_owner(key: str) -> str:
    """The namespace feature a setting belongs to: "net", "ipc", or "" for the whole host's."""
    path = sysctl_path(key)
    if path.startswith("net/"):
        return "net"
    return "ipc" if path in IPC_SYSCTLS or path.startswith("fs/mqueue/") else ""


class Sysctl(Feature):
    """Kernel settings of the container's own namespaces, in order. sysctl(8), Documentation/admin-guide/sysctl.

    Only net.* and those of System V IPC and message queues belong to namespaces; any other would set up the host. In a
    user namespace net.ipv4.ping_group_range ends at the last group that exists there: the kernel takes no other.
    """

    NAME = "sysctl"
    SUMMARY = "kernel settings of its own network and IPC"
    NEEDS = (("proc", "settings are written through /proc/sys"),)

    settings: tuple[tuple[str, str], ...]

    def check(self) -> None:
        pairs = []
        for pair in sequence(self.settings, "sysctl settings"):
            two = sequence(pair, "sysctl setting")
            if len(two) != 2:
                raise SpecError(f"sysctl: {shown(pair)} is not (key, value)")
            key, value = word(two[0], "sysctl key", limit=255), word(two[1], f"sysctl {two[0]}", limit=4095)
            parts = sysctl_path(key).split("/")
            if len(parts) < 2 or "" in parts or "." in parts or ".." in parts or any(c.isspace() for c in key):
                raise SpecError(f"sysctl: {shown(key)} is not a key such as net.ipv4.ip_forward")
            if key in ("kernel.hostname", "kernel.domainname"):
                raise SpecError(f"sysctl {key}: ask for the feature {key.removeprefix('kernel.')} instead")
            if not sysctl_owner(key):
                raise SpecError(f"sysctl {key}: belongs to no namespace: it would be set for the whole host")
            pairs.append((key, value))
        frozen(self, "settings", tuple(pairs))

    def steps(self, ctx: Context) -> Iterator[Step]:
        for key, value in self.settings:
            if key == "net.ipv4.ping_group_range":
                value = mapped_range(value, ctx)
            path, data = f"/proc/sys/{sysctl_path(key)}", value.encode("utf-8", "surrogateescape")
            yield self.step("write_file", SETUP, f"{key} = {value}", path=path, data=data, magic=PROC_SUPER_MAGIC)


def mapped_range(value: str, ctx: Context) -> str:
    """The "first last" of groups in VALUE, cut to what the user namespace maps without a gap from its first row on."""
    user, bounds = ctx.get("userns"), value.split()
    if user is None or user.join or len(bounds) != 2 or not bounds[1].isdecimal():
        return value
    last = -1
    for first, count in sorted(user.gids):
        if first != last + 1:
            break
        last = first + count - 1
    return f"{bounds[0]} {min(int(bounds[1]), last)}" if last >= 0 else value


class BootId(Feature):
    """A random boot id of its own, new at each start, so that journals tell its boots apart. random(4).

    Over /proc/sys/kernel/random/boot_id, read-only, as LXC and systemd-nspawn do.
    """

    NAME = "boot_id"
    SUMMARY = "a boot id of its own, new at each start"
    NEEDS = (("proc", "it stands below /proc/sys"), ("dev", "the file that holds it would be made in the image"))

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("boot_id", SETUP, "a random one", path="/dev/.boot_id")


class Keyring(Feature):
    """A new and empty session keyring, so that the host's keys cannot be read. Linux 2.6.10, keyrings(7)."""

    NAME = "keyring"
    SUMMARY = "a session keyring of its own; the caller's keys stay outside"

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("keyring", LOCK, "new and without a name", keyring="")  # a name could be joined by others


class Personality(Feature):
    """Address space randomisation, and what uname says of the machine. Linux 2.6.12, personality(2)."""

    NAME = "personality"
    SUMMARY = "address randomisation on or off; a 32-bit machine on show"

    aslr: bool = True
    persona: str = "linux"

    def check(self) -> None:
        choice(self.persona, "personality", ("linux", "linux32"))

    def steps(self, ctx: Context) -> Iterator[Step]:
        persona = (PER_LINUX32 if self.persona == "linux32" else PER_LINUX) | (0 if self.aslr else ADDR_NO_RANDOMIZE)
        about = f"{self.persona}, randomised addresses {'on' if self.aslr else 'off'}"
        yield self.step("personality", LOCK, about, persona=persona)


class Session(Feature):
    """A session of its own, cut from the caller's terminal: TIOCSTI cannot type there (CVE-2017-5226). setsid(2)."""

    NAME = "session"
    SUMMARY = "a session of its own, cut from the caller's terminal"

    def steps(self, ctx: Context) -> Iterator[Step]:
        yield self.step("setsid", LOCK)


class Tty(Feature):
    """A terminal of the container's own devpts as stdin, stdout, stderr; the caller holds its master. pty(7)."""

    NAME = "tty"
    SUMMARY = "a terminal of its own as standard input and output"
    NEEDS: ClassVar[tuple[tuple[str, str], ...]] = (
        ("devpts", "the terminal is one of the container's own"),
        ("session", "only a session leader can have a controlling terminal"),
    )

    def steps(self, ctx: Context) -> Iterator[Step]:
        who = ctx.get("user")
        uid = 0 if who is None else who.resolved().uid
        yield self.step("console", LOCK, f"of user {uid}", socket="console", uid=uid, flags=CONSOLE_BIND)


class Pdeathsig(Feature):
    """A signal when the process that started the container dies. Linux 2.1.57, prctl(2) PR_SET_PDEATHSIG.

    "The process" is the very thread that started it. Init has the signal and passes it on.
    """

    NAME = "pdeathsig"
    SUMMARY = "dies when the process that started it dies"

    signal: str = "KILL"

    def check(self) -> None:
        signal_number(self.signal)

    def steps(self, ctx: Context) -> Iterator[Step]:
        number = signal_number(self.signal)
        if ctx.has("init"):
            yield self.step("pdeathsig", SETUP, f"{self.signal} to init", signal=number)
        else:
            yield self.step("pdeathsig", LOCK, self.signal, signal=number)


class Init(Feature):
    """A small process stays as PID 1: it reaps orphans, forwards signals, and ends as the program ended.

    Without it the program is PID 1 itself, which has no default signal handlers (pid_namespaces(7)). Outside a pid
    namespace of its own it is a subreaper (Linux 3.4, prctl(2) PR_SET_CHILD_SUBREAPER).
    """

    NAME = "init"
    SUMMARY = "a small PID 1 that reaps orphans and forwards signals"

    def steps(self, ctx: Context) -> Iterator[Step]:
        flags = DIE_WITH_PARENT if ctx.has("pdeathsig") else 0
        if not own(ctx, "pid"):
            yield self.step("subreaper", SETUP)
            # nothing else ends the program with its init; again in LOCK, for a user change clears it
            yield self.step("pdeathsig", LOCK, "KILL when init is gone", signal=SIGNALS["KILL"])
        yield self.step("init", SETUP, "stays; what follows is the program's", status_fd="status", flags=flags)
