"""``exec``: one more program in a container that runs.

::

    parent                                         child (stub, on the host)            grandchild (in the container)
    open root, cgroups by /proc/PID; then look
    at the pidfd: it was that process all along
    clone3, no new namespaces ------------------>  not dumpable; closes all it needs not
                                                   cgroups, setns(pidfd), chroot: each
                                                   descriptor is closed as it is used
                                                   limits, user, capabilities, no_new_privs
    reads its pid  <-- a page of the child's only  fork ------------------------------> seen inside from here on:
    reaps it                                       leaves                               session, terminal, read back
    end of file on the report pipe <----------------------------------------------------- filter, execve

Nothing of the host is in a process that the container can see: no memory (CVE-2016-9962), no descriptor
(CVE-2024-21626), no privilege that its own processes have not, and as its executable only a sealed memory file
(CVE-2019-5736). Without a pid namespace of the container's own there is no fork: it sees the host's processes anyway.
"""

from __future__ import annotations

import os

from minictr.errors import MinictrError, SpecError, StepFailed
from minictr.features.capabilities import CAPABILITIES, CONFINING, Capabilities, NoNewPrivs
from minictr.features.controllers import Controller
from minictr.features.join import Join, JoinedCwd, JoinedTty, JoinedUserNamespace
from minictr.features.namespaces import Namespace, UserNamespace
from minictr.features.process import Cwd, Env, Hostname, Session, checked_variable
from minictr.features.seccomp import Seccomp
from minictr.features.users import Identity
from minictr.kernel.core import lib
from minictr.kernel.handles import shut
from minictr.plan import plan
from minictr.runtime import joining
from minictr.runtime.filters import with_program
from minictr.runtime.launch import START_TIMEOUT
from minictr.runtime.looks import fingerprint
from minictr.runtime.process import is_over
from minictr.runtime.program import Program
from minictr.runtime.resolve import caller_environment, check_program, look_up_user, told_by_fingerprint
from minictr.spec import Spec
from minictr.steps import Feature
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from minictr.features.filters import SeccompFilter
    from minictr.kernel.cgroups import Place
    from minictr.runtime.console import Console
    from minictr.runtime.instance import Instance
    from minictr.runtime.notified import Handler
    from minictr.runtime.process import Process
    from minictr.runtime.result import Result
    from minictr.runtime.supervisor import Supervisor

__all__ = ["REPEATED", "Target", "exec_popen", "exec_program", "exec_run", "exec_spec", "join", "target_of"]

# What confines a program and not its world, by feature name: done again by each that joins.
REPEATED = frozenset(
    "env cwd umask rlimits oom_score_adj keyring personality session user capabilities disable_userns".split()
).union(CONFINING)
ROOTS = ("pivot_root", "chroot")
PIDFD_JOINS = (5, 8)  # setns(2) on a pidfd
CACHED = 32  # compiled programs that are kept


class Target(Value):
    """A container that runs.

    ``pid``: of its first process, as we count; ``pidfd``: that process's, -1 to have it opened for each program by
    ``pid``, which the caller then vouches for. ``spec``: what it was started from. ``places``: controller -> its
    cgroup; none: the program stays in the caller's.
    """

    pid: int
    spec: Spec
    pidfd: int = -1
    places: Mapping[str, Place] = {}

    def __hash__(self) -> int:
        return hash((self.pid, self.pidfd))


def target_of(instance: Instance) -> Target:
    """A running container as a target; its ``pidfd`` is the caller's to close. Raises WrongStatus, StepFailed."""
    instance.must_be("running", verb="exec")
    try:
        pidfd = instance.process.pidfd()
    except OSError as err:
        raise StepFailed(f"exec {instance.label}", err.errno or 0, cure="it is over") from err
    return Target(instance.process.pid, instance.state.spec, pidfd, instance.places())


def exec_spec(
    target: Target,
    args: Sequence[str],
    *,
    user: str = "",
    cwd: str = "",
    env: Mapping[str, str] | None = None,
    tty: bool = False,
    privileged: bool = False,
    cap_add: Sequence[str] = (),
    cap_drop: Sequence[str] = (),
    labels: Sequence[Feature] = (),
    seccomp: SeccompFilter | str | None = None,
    no_new_privs: bool = False,
    without: Collection[str] = (),
    detach: bool = False,
) -> Spec:
    """The spec of running ARGS in TARGET: its own, with what it made turned into what is joined.

    ``user``, ``cwd``: others than the container's. ``env``: on top of its own. ``privileged``: every capability, no
    filter, no Landlock, no no_new_privs, no label. ``cap_add``, ``cap_drop``: as with run. ``labels``: AppArmor and
    SELinux wishes instead of its own; ``seccomp``: a filter, or a policy's name, instead of its own;
    ``no_new_privs``: also where the container's own programs are without it. ``without``: features of the container (or
    controllers of its cgroups) that are not joined or not done again. ``detach``: the container's first process becomes
    its parent. Raises SpecError.
    """
    if isinstance(args, str) or not args:
        raise SpecError(f"args must be a list of strings, not {args!r}")
    left_out(target, without)
    names = target.spec.names.difference(without)
    kinds = tuple(kind for kind in target.spec.features if isinstance(kind, Namespace) and kind.name in names)
    mounts = any(kind.name == "mnt" for kind in kinds)
    # a new root in a mount namespace of its own is that namespace's, and comes with it
    enter = "chroot" in names or ("pivot_root" in names and not mounts)
    groups = joined_groups(target, without)
    pivoted = "pivot_root" in names
    features: list[Feature] = [Join(target.pid, kinds, at_once(), enter, pivoted, groups, detach)]
    features += (repeated(feature) for feature in target.spec.features if feature.name in names & REPEATED)
    features += (joined_users(kind) for kind in kinds if isinstance(kind, UserNamespace))
    root = f"/proc/{target.pid}/root" if mounts or enter else ""
    environ = caller_environment() if "env" in without else target.spec.environ or caller_environment()
    spec = Spec(tuple(map(str, args)), tuple(features), root, target.spec.name, environ)
    spec = spec.with_(environment(target.spec, env or {}, without))
    if user:
        spec = spec.with_(Identity(user))
    if cwd:
        spec = spec.with_(JoinedCwd(cwd))
    spec = (unconfined(spec) if privileged else spec).with_(*labels)
    if seccomp is not None:
        spec = spec.with_(Seccomp(seccomp))
    if no_new_privs:
        spec = spec.with_(NoNewPrivs())
    if cap_add or cap_drop:
        from minictr.parse.settings import adjusted_capabilities

        spec = spec.with_(adjusted_capabilities(spec.get("capabilities"), cap_add, cap_drop, spec.get("user")))
    if tty:
        spec = spec.with_(Session(), JoinedTty())
    return spec


def unconfined(spec: Spec) -> Spec:
    """SPEC as docker's ``--privileged`` has it, as far as a program alone can be."""
    spec = spec.replace(features=tuple(f for f in spec.features if f.name not in CONFINING))
    return spec.with_(Capabilities(CAPABILITIES, drop_only=True))


def left_out(target: Target, without: Collection[str]) -> None:
    """Every name in WITHOUT must be of something that is joined or repeated. Raises SpecError."""
    features = target.spec.features
    known = {
        f.name for f in features if isinstance(f, (Namespace, Controller)) or f.name in REPEATED or f.name in ROOTS
    }
    known |= target.places.keys()
    for name in without:
        if name not in known:
            raise SpecError(
                f"without {name}: exec neither joins nor repeats it here; it does {', '.join(sorted(known))}"
            )


def controllers(spec: Spec, without: Collection[str]) -> frozenset[str]:
    """The cgroup controllers that leaving WITHOUT out leaves out: cpu takes cpuacct along."""
    found = set(without)
    for feature in spec.features:
        if isinstance(feature, Controller) and feature.name in without:
            found.update(feature.controllers())
    return frozenset(found)


def joined_groups(target: Target, without: Collection[str]) -> tuple[tuple[str, int, str], ...]:
    """(controller, version, directory) of TARGET's groups but for WITHOUT."""
    stays_out = controllers(target.spec, without)
    return tuple(
        (controller, place.version, place.directory)
        for controller, place in target.places.items()
        if controller not in stays_out
    )


def at_once() -> bool:
    """Whether this kernel joins all namespaces by one setns(2) on a pidfd. Linux 5.8."""
    release = os.uname().release.split("-")[0].split(".")
    return tuple(int(number) for number in release[:2] if number.isdecimal()) >= PIDFD_JOINS


def repeated(feature: Feature) -> Feature:
    """FEATURE as a program does it that joins."""
    return JoinedCwd(feature.path) if isinstance(feature, Cwd) else feature


def joined_users(kind: UserNamespace) -> JoinedUserNamespace:
    """What is left to do of KIND once it is joined."""
    return JoinedUserNamespace(kind.uid_map, kind.gid_map, kind.join, kind.auto)


def environment(spec: Spec, extra: Mapping[str, str], without: Collection[str]) -> Env:
    """The environment wish of a container with SPEC, with EXTRA on top."""
    own: Any = spec.get("env")
    kept = own if isinstance(own, Env) and "env" not in without else Env(clear=False)
    variables: dict[str, str] = {}
    host: Any = spec.get("hostname")
    if kept.clear and isinstance(host, Hostname):
        variables["HOSTNAME"] = host.hostname
    variables.update(kept.variables)
    variables.update(checked_variable(name, value) for name, value in extra.items())
    return Env(tuple(variables.items()), kept.clear)


def exec_program(target: Target, args: Sequence[str], **options: Any) -> Program:
    """:func:`exec_spec` compiled: users and the program looked up in the root as it is now.

    Kept for the next time, while what was looked at is as it was. Raises SpecError, CommandNotFound,
    CommandNotExecutable; StepFailed (ESRCH) when the container is over.
    """
    try:
        return _program(target, args, options)
    except MinictrError:
        gone = is_over(target.pidfd, 0) if target.pidfd >= 0 else not os.path.exists(f"/proc/{target.pid}")
        if gone:  # then what was not found means nothing
            raise over(target.pid) from None
        raise


def over(pid: int) -> StepFailed:
    """The container's first process is gone."""
    return StepFailed(f"join process {pid}", 3, cure="the container is over")


def _program(target: Target, args: Sequence[str], options: dict[str, Any]) -> Program:
    judged = options.get("seccomp")  # a filter's repr does not tell it
    key = (target.pid, args if isinstance(args, str) else tuple(args), repr((target.places, options)), judged)
    kept = _programs.get(key)
    if kept is not None and kept.target is target.spec and kept.program.seen == seen(kept.program.plan.spec):
        return kept.program
    # a container of the library's may be told by its wishes: what is written down has the program already
    spec = exec_spec(target.replace(spec=with_program(target.spec)), args, **options)
    spec = spec if judged is None else with_program(spec)
    mark = seen(spec)
    who: Any = spec.get("user")
    program = Program(plan(look_up_user(spec) if who is not None and who.uid == -1 else spec))
    check_program(program.plan.spec, tuple(program.plan.steps[-1].args["paths"]))
    if mark and told_by_fingerprint(spec):
        if len(_programs) >= CACHED:
            _programs.clear()
        program.seen = mark
        _programs[key] = Kept(target.spec, program)
    return program


def seen(spec: Spec) -> tuple[int, ...]:
    """What the answers of the container's root hang on; () where that cannot be told."""
    return fingerprint(f"{spec.rootfs}/.") if spec.rootfs else ()  # /proc/PID/root itself is a link, of a kind


class Kept(Value):
    """A compiled program, and the container's spec that it was made from."""

    target: Spec
    program: Program


_programs: dict[tuple[object, ...], Kept] = {}


def join(
    program: Program,
    fds: dict[str, int],
    target: Target,
    *,
    preserve_fds: int = 0,
    start_timeout: float = START_TIMEOUT,
    console: Console | None = None,
    supervisor: Supervisor | None = None,
) -> Process:
    """:func:`minictr.runtime.joining.join` of a program made by :func:`exec_program` for TARGET."""
    pidfd = target.pidfd if target.pidfd >= 0 else opened(target.pid)
    try:
        return joining.join(program, fds, pidfd, preserve_fds, start_timeout, console, supervisor)
    finally:
        if pidfd != target.pidfd:
            shut(pidfd)


def opened(pid: int) -> int:
    """A pidfd. Raises StepFailed (ESRCH)."""
    result = int(lib.mc_pidfd_open(pid, 0))
    if result < 0:
        raise over(pid)
    return result


def exec_popen(
    target: Target,
    args: Sequence[str],
    *,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    text: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
    preserve_fds: int = 0,
    start_timeout: float = START_TIMEOUT,
    console: Console | None = None,
    on_syscall: Handler | None = None,
    **options: Any,
) -> Process:
    """Start ARGS in TARGET: streams and ``on_syscall`` as :meth:`Container.popen`, the rest as :func:`exec_spec`.

    The process is that one program: to kill it ends neither the container nor what it started in there.
    """
    from minictr.runtime.container import started, supervised

    program = exec_program(target, args, tty=console is not None, **options)
    how: dict[str, Any] = {"preserve_fds": preserve_fds, "start_timeout": start_timeout, "console": console}
    how["supervisor"] = supervised(program, on_syscall)

    def start(fds: dict[str, int]) -> Process:
        return join(program, fds, target, **how)

    return started(start, stdin, stdout, stderr, text, encoding, errors)


def exec_run(
    target: Target,
    args: Sequence[str],
    *,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    text: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
    **options: Any,
) -> Result:
    """Run ARGS in TARGET to the end: as :meth:`Container.run`, with the options of :func:`exec_popen`.

    After ``timeout`` seconds that one program is killed.
    """
    from minictr.runtime.container import to_the_end

    how = (input, capture_output, timeout, check, text, encoding, errors)
    return to_the_end(lambda **streams: exec_popen(target, args, **{**options, **streams}), *how)
