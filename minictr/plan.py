"""plan(spec) -> Plan: every kernel operation, in order, before any is done. Pure: nothing here touches the kernel."""

from __future__ import annotations

from minictr.features.contradictions import CHECKS, check_held
from minictr.features.process import PATH, caller_environment
from minictr.features.tables import SIGNALS
from minictr.search import candidates
from minictr.steps import ATTACH, CLONE, EXEC, LOCK, PHASES, PREPARE, SETUP, VERIFY, Context, Step
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from minictr.spec import Spec

# The one order. A row is (phase, calls, reason); calls are names of steps, or "feature.call" where the same call stands
# at two places. Calls of one row mix, parents of a path before what lies below it; else the order of the features.
ORDER: tuple[tuple[int, tuple[str, ...], str], ...] = (
    (PREPARE, ("check_label",), "a module that is not live, or has no such label, ends the start before it began"),
    (PREPARE, ("open_namespace",), "a namespace that is not there ends the start before anything is made"),
    (PREPARE, ("landlock_abi",), "what this kernel cannot deny ends the start before anything is made"),
    (PREPARE, ("known_capabilities",), "what this kernel does not have ends the start before anything is made"),
    (PREPARE, ("lease_ids",), "before what is given to them: groups, and mounts shown through them"),
    (PREPARE, ("cgroup",), "the group and its limits are there before the first process is in it"),
    (PREPARE, ("lease", "lease_upon"), "an address first: what follows goes by it"),
    (PREPARE, ("hosts", "resolv_conf"), "by the addresses that it has now"),
    (PREPARE, ("port",), "a port that is taken ends the start before anything is made for it"),
    (PREPARE, ("pasta_ports",), "the program and the ports: nothing is made yet"),
    (PREPARE, ("bridge",), "what containers share is there before any of them needs it"),
    (PREPARE, ("bridge_netfilter",), "of the bridge that was just made"),
    (PREPARE, ("forwarding",), "before the first packet"),
    (PREPARE, ("make_directory",), "the layers of an overlay must be there when it is mounted"),
    (PREPARE, ("idmap_tree", "idmap_upper"), "needs privilege over the file system, which the child may not have"),
    (PREPARE, ("open_cgroup",), "a cgroup that is gone ends the start before anything is made"),
    (PREPARE, ("open_process",), "after all that was opened by its pid, which could be another's by now"),
    (CLONE, ("enter_pidns",), "decides where the child goes, so it is before the clone"),
    (CLONE, ("clone",), "all new namespaces are flags of one clone3"),
    (ATTACH, ("uid_map",), "the child is nobody until it is mapped"),
    (ATTACH, ("gid_map",), "with setgroups denied first where the kernel wants that"),
    (ATTACH, ("publish_proxy",), "first of all: it binds and locks itself up while the rest is made"),
    (ATTACH, ("veth", "upon"), "while the child waits: its network namespace is there, and nothing of it runs"),
    (ATTACH, ("egress",), "the first of the rules: nothing of it has run, and nothing was sent"),
    (ATTACH, ("conntrack",), "the wall before the ways in"),
    (ATTACH, ("nat",), "for the addresses that are there now"),
    (ATTACH, ("publish",), "who comes from now on finds all of it"),
    (ATTACH, ("proxy_bound",), "a port that the proxy could not bind ends the start"),
    (
        ATTACH,
        ("pasta",),
        "after the maps: it enters the user namespace; while the child waits, so that nobody is early",
    ),
    (ATTACH, ("announce",), "last: who is told its name can reach it"),
    (ATTACH, ("oom_score_adj",), "by the parent, who may still lower it"),
    (SETUP, ("start.pdeathsig",), "first of all: whatever happens now, no child outlives a dead parent"),
    (SETUP, ("barrier",), "wait for the maps"),
    (
        SETUP,
        ("exec_label",),
        "by the caller's /proc, where no image has put anything in the way; it waits with the task for execve",
    ),
    (SETUP, ("cgroup_enter",), "all that the start does from here on counts in the container's own groups"),
    (SETUP, ("timens.unshare",), "as the caller's user, who owns /proc/self until the next steps change that"),
    (SETUP, ("disable_userns.write_file",), "with the privilege that is dropped later; needs the host's /proc"),
    (SETUP, ("timens.write_file",), "offsets must be there before the first process is inside; needs the host's /proc"),
    (SETUP, ("timens.setns_time",), "with the privilege over what was just made; needs the host's /proc"),
    (SETUP, ("join.setgroups",), "in a user namespace that denies setgroups they could not be dropped any more"),
    (SETUP, ("join.setns",), "all at once, while the caller's privilege is there for those that others own"),
    (SETUP, ("userns.setns",), "gives the privilege that joining the others needs"),
    (
        SETUP,
        ("unshare",),
        "new namespaces inside a joined user namespace belong to it; a cgroup namespace's root is the group entered",
    ),
    (SETUP, ("setns",), "before mounts: they show the namespaces of who mounts them"),
    (SETUP, ("enter_root",), "from here on no host path is reachable"),
    (SETUP, ("propagation",), "before the first mount, so that none reaches the host"),
    (SETUP, ("open_tree", "adopt", "fsmount"), "host paths, while they can be reached, and as the caller's user"),
    (SETUP, ("setattr",), "on trees that nobody can see yet"),
    (SETUP, ("userns.setgroups",), "groups while the user may still set them"),
    (SETUP, ("userns.setresgid",), "group before user: afterwards it may not"),
    (SETUP, ("userns.setresuid",), "root inside owns what is made from here on"),
    (SETUP, ("overlay", "overlay_trees"), "keeps the credentials of who mounts it for all it does to its layers"),
    (SETUP, ("root_attach",), "after all sources: it may cover them"),
    (SETUP, ("pivot_root", "chroot"), "from here on no host path is reachable"),
    (
        SETUP,
        ("mount", "attach"),
        "inside the root, parents before children; /proc, /sys and /dev after all others: where a link of the image "
        "leads a volume there, it is covered, and nothing is made in it",
    ),
    (SETUP, ("verify_mount",), "after the last mount: a volume that is not where its name says ends the start"),
    (SETUP, ("mkdir",), "in what is mounted"),
    (SETUP, ("mknod",), "in /dev, once it is mounted"),
    (SETUP, ("symlink",), "in /dev and /sys/fs/cgroup, once they are mounted"),
    (SETUP, ("boot_id",), "from a file in /dev, before /proc/sys becomes read-only"),
    (
        SETUP,
        ("etc_file",),
        "in the root while it can be written, from a file in /dev; after all volumes",
    ),
    (SETUP, ("chdir",), "makes the directory while the root can be written and before the user changes"),
    (SETUP, ("loopback_up",), "needs the privilege over the network"),
    (SETUP, ("sethostname",), "needs the privilege over the host name"),
    (SETUP, ("setdomainname",), "needs the privilege over the host name"),
    (SETUP, ("write_file",), "before /proc/sys becomes read-only"),
    (
        SETUP,
        ("mask",),
        "after the last step that needs /proc or /sys; in one run: the core shares a base among them",
    ),
    (SETUP, ("readonly_path",), "after the last write through them; recursive, so masks below stay"),
    (SETUP, ("remount",), "the root read-only, and /sys/fs/cgroup, after the last mount point was made in it"),
    (SETUP, ("verify_paths",), "after the last mount, which could lie over them, and before the user may not look"),
    (SETUP, ("pdeathsig",), "a user change above has cleared it (prctl(2))"),
    (SETUP, ("subreaper",), "before init has children"),
    (SETUP, ("init",), "stays behind; everything after is the program's alone"),
    (LOCK, ("propagation",), "shared anew, after the last mount"),
    (LOCK, ("sigreset",), "no handler and no blocked signal of the caller's reaches the program"),
    (LOCK, ("setsid",), "before a terminal can be its own"),
    (LOCK, ("console",), "needs /dev/ptmx and, to give it to the user, privilege"),
    (LOCK, ("stdio",), "the program's own, where there is no terminal"),
    (LOCK, ("rlimit",), "raising one needs privilege"),
    (LOCK, ("umask",), "after the last file was made"),
    (LOCK, ("keyring",), "before the user changes, so that it can be joined"),
    (LOCK, ("personality",), "takes effect at execve"),
    (
        LOCK,
        ("landlock_ruleset", "landlock_path", "landlock_port"),
        "paths are opened while root can: the user need not be let in everywhere",
    ),
    (
        LOCK,
        ("landlock_restrict",),
        "without no_new_privs: while CAP_SYS_ADMIN is there, and before a filter forbids it",
    ),
    (LOCK, ("disable_userns.seccomp",), "before the program's own filter, which may forbid to load another"),
    (LOCK, ("seccomp",), "without no_new_privs: while CAP_SYS_ADMIN is there (as runc does)"),
    (LOCK, ("bounding",), "needs CAP_SETPCAP"),
    (LOCK, ("keep_caps",), "before the user changes"),
    (LOCK, ("setgroups",), "groups while the user may still set them"),
    (LOCK, ("setresgid",), "group before user: afterwards it may not"),
    (LOCK, ("setresuid",), "after all that root alone may do"),
    (LOCK, ("capset",), "after the user change, which clears the effective set"),
    (LOCK, ("ambient",), "after capset: ambient must be permitted and inheritable"),
    (LOCK, ("securebits",), "after ambient, which one of them forbids to raise; CAP_SETPCAP was left for it"),
    (LOCK, ("securebits.capset",), "and goes now"),
    (LOCK, ("no_new_privs",), "last of the privileges: nothing can be gained any more"),
    (LOCK, ("fork",), "into a joined pid namespace, where others see it from now on: with no privilege left to steal"),
    (LOCK, ("pdeathsig",), "after the user change, which clears it (prctl(2))"),
    (LOCK, ("chdir",), "as the user, who must be allowed in"),
    (VERIFY, ("verify_root",), "the root is the container's, and the working directory inside (CVE-2024-21626)"),
    (VERIFY, ("verify_ids",), "read back, for a set that did not take is a hole"),
    (VERIFY, ("verify_caps",), "read back, for a set that did not take is a hole"),
    (VERIFY, ("verify_securebits",), "read back: the kernel shows them to nobody else"),
    (VERIFY, ("verify_no_new_privs",), "read back"),
    (VERIFY, ("verify_no_userns",), "tried, as whoever the program is"),
    (
        VERIFY,
        ("hold",),
        "create ends here and start goes on: all is done and read back, nothing of the program has run",
    ),
    (
        VERIFY,
        ("verify_label",),
        "after the wait, in which its profile may have been removed: the program would be confined by none",
    ),
    (EXEC, ("landlock_restrict",), "with no_new_privs: no step of ours opens a file or leaves a process any more"),
    (EXEC, ("ready",), "the last calls of ours but one: init is locked, the parent lives, descriptors close on exec"),
    (EXEC, ("disable_userns.seccomp",), "before the program's own filter, which may forbid to load another"),
    (EXEC, ("seccomp",), "with no_new_privs: last, so that the filter need not allow any step of ours"),
    (EXEC, ("exec",), "the program"),
)

# What only the program itself can have, which a fork into a joined pid namespace begins: these rows follow it then.
AFTER_FORK = ("setsid", "console", "stdio")

PATH_MAX = 4096  # linux/limits.h: more than any path has components

_RANK = {(phase, call): rank for rank, (phase, calls, _) in enumerate(ORDER) for call in calls}


def rank(step: Step, *, forks: bool = False) -> tuple[int, int]:
    """Where a step stands: its row in ORDER, and within mounts the depth of its path. ``forks``: whether the plan has
    a fork."""
    if forks and step.phase == LOCK and step.call in AFTER_FORK:
        return _RANK[LOCK, "fork"], 1 + AFTER_FORK.index(step.call)
    place = _RANK.get((step.phase, f"{step.feature}.{step.call}"))
    if place is None:
        place = _RANK[step.phase, step.call]
    depth = mount_rank(step.args["path"]) if step.phase == SETUP and step.call in ("mount", "attach") else 0
    return place, depth


def mount_rank(path: str) -> int:
    """Where a mount at PATH stands among the others: its depth, and below the kernel's directories after all others."""
    late = f"{path}/".startswith(("/proc/", "/sys/", "/dev/"))
    return path.count("/") + (PATH_MAX if late else 0)


class PlanDiff(Value):
    """What tells two plans apart: steps only in the second, and steps only in the first. str() is a unified diff."""

    added: tuple[Step, ...]
    removed: tuple[Step, ...]
    lines: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)

    def __str__(self) -> str:
        return "\n".join(self.lines)


class Plan(Value):
    """An ordered tuple of steps, and the spec they were made from. Printable, comparable, executable."""

    steps: tuple[Step, ...]
    spec: Spec

    def __iter__(self) -> Iterator[Step]:
        return iter(self.steps)

    def __len__(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        """One line a step: number, phase, call, object, feature."""
        rows = [row(step) for step in self.steps]
        digits = len(str(len(rows)))
        return "\n".join(f"{number:>{digits}}  {text}" for number, text in enumerate(aligned(rows), 1))

    def json(self) -> list[dict[str, Any]]:
        """A plain dict for each step; bytes are shown by length and the first digits of their SHA-256."""
        return [
            {
                "number": number,
                "phase": PHASES[step.phase],
                "call": step.call,
                "about": step.about,
                "feature": step.feature,
                "args": {name: plain(value) for name, value in step.args.items()},
                "tolerate": list(step.tolerate),
                "undo": step.undo,
            }
            for number, step in enumerate(self.steps, 1)
        ]

    def diff(self, other: Plan) -> PlanDiff:
        """What OTHER has more and less than this plan."""
        from difflib import SequenceMatcher

        rows = [row(step) for step in (*self.steps, *other.steps)]
        texts = aligned(rows)
        added: list[Step] = []
        removed: list[Step] = []
        lines: list[str] = []
        for kind, a, b, c, d in SequenceMatcher(None, self.steps, other.steps, autojunk=False).get_opcodes():
            if kind == "equal":
                continue
            lines.append(f"@@ step {min(a + 1, len(self.steps))} @@")
            removed += self.steps[a:b]
            added += other.steps[c:d]
            lines += (f"-{text}" for text in texts[a:b])
            lines += (f"+{text}" for text in texts[len(self.steps) + c : len(self.steps) + d])
        return PlanDiff(tuple(added), tuple(removed), tuple(lines))


def row(step: Step) -> tuple[str, ...]:
    """A step as columns of text, no column with a line break in it."""
    about = step.about.replace("\n", "\\n")
    return PHASES[step.phase], step.call, about if len(about) <= 60 else about[:57] + "...", step.feature


def aligned(rows: list[tuple[str, ...]]) -> list[str]:
    """Columns under one another, the last one ragged."""
    if not rows:
        return []
    widths = [max(len(cells[column]) for cells in rows) for column in range(len(rows[0]) - 1)]
    padded = (([*map(str.ljust, cells, widths)], cells[-1]) for cells in rows)
    return ["  ".join((*cells, last)).rstrip() for cells, last in padded]


def plain(value: Any) -> Any:
    """VALUE as JSON has it."""
    if isinstance(value, bytes):
        from hashlib import sha256

        return {"length": len(value), "sha256": sha256(value).hexdigest()[:12]}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def frame(ctx: Context) -> Iterator[Step]:
    """The steps of every start, whatever the features; "start" in time lines."""
    yield Step("pdeathsig", SETUP, {"signal": SIGNALS["KILL"]}, "start", "KILL until go")
    if not ctx.has("pdeathsig") and not ctx.has("init"):  # init clears its own
        yield Step("pdeathsig", LOCK, {"signal": 0}, "start", "none: it may outlive its parent")
    yield Step("sigreset", LOCK, {}, "start", "all signals as by default")
    yield Step("ready", EXEC, {"preserve": 0}, "start", "init locked, parent alive, descriptors closed")
    if not ctx.has("tty"):
        streams = {"stdin": "stdin", "stdout": "stdout", "stderr": "stderr"}
        yield Step("stdio", LOCK, streams, "start", "stdin, stdout, stderr")


def environment(ctx: Context, caller: tuple[str, ...]) -> dict[str, str]:
    """The program's environment: the feature env's, or the caller's; HOME of the user where nothing says otherwise."""
    env, who = ctx.get("env"), ctx.get("user")
    found: dict[str, str] = caller_environment(caller) if env is None else env.environment(ctx, caller)
    if env is not None and env.clear and who is not None and who.home:
        found.setdefault("HOME", who.home)
    return found


def final(ctx: Context, caller: tuple[str, ...]) -> Step:
    """The last step: execve."""
    env = environment(ctx, caller)
    paths = candidates(ctx.argv[0], env.get("PATH", PATH))
    args = {
        "argv": list(ctx.argv),
        "env": [f"{name}={value}" for name, value in env.items()],
        "paths": paths,
    }
    return Step("exec", EXEC, args, "exec", " ".join(ctx.argv))


BARRIER = Step("barrier", SETUP, {"fd": "barrier"}, "start", "wait for the parent's go")
HOLD = Step("hold", VERIFY, {"fd": "hold"}, "start", "wait for the second half of a two-phase start")


def plan(spec: Spec, extra: tuple[Step, ...] = ()) -> Plan:
    """Every kernel operation for SPEC, in order. Raises SpecError for wishes that contradict one another.

    EXTRA: what only the way of starting asks for: BARRIER (always there where ATTACH has something to do), HOLD.
    """
    names = frozenset(feature.name for feature in spec.features)
    ctx = Context(rootfs=spec.rootfs, argv=spec.argv, features=spec.features, names=names)
    for check in CHECKS:
        check(ctx)
    if HOLD in extra:
        check_held(ctx)
    steps = [*frame(ctx), *extra]
    for feature in spec.features:
        steps += feature.steps(ctx)
    if BARRIER not in extra and any(step.phase == ATTACH for step in steps):
        steps.append(BARRIER)
    steps.append(final(ctx, spec.environ))
    forks = any(step.call == "fork" for step in steps)
    steps.sort(key=lambda step: (step.phase, *rank(step, forks=forks)))
    return Plan(tuple(steps), spec)
