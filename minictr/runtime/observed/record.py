"""What a program needs, recorded: a filter, capabilities, and Landlock's paths; and tried.

A program is run observed, as it is confined anyway. What it called, used and opened becomes a profile; with that it is
run again, and what the profile denies that was done before is added, until nothing is. So the table of which call needs
which capability (capabilities(7)) makes the first guess, and the kernel has the last word.
"""

from __future__ import annotations

import os

from minictr.errors import MinictrError, SpecError, StepFailed
from minictr.features.capabilities import CAPABILITIES, Capabilities
from minictr.features.filter_parts import ALLOW, Action, Rule
from minictr.features.landlock import Landlock
from minictr.features.seccomp import Seccomp
from minictr.rights import ACCESS
from minictr.runtime.observed import needs
from minictr.runtime.observed.case import Case
from minictr.runtime.observed.filterjudge import FilterJudge
from minictr.runtime.observed.landlockjudge import MOUNTS
from minictr.runtime.observed.layers import judged
from minictr.runtime.observed.paths import rules_of
from minictr.values import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from minictr.features.filters import SeccompFilter
    from minictr.runtime.process import Process
    from minictr.spec import Spec
    from minictr.steps import Feature

__all__ = ["ALWAYS", "Recording", "record", "recorded", "verified"]

# Done by every program sooner or later, though not by each run of it: ends, and the way back from a signal handler.
ALWAYS = ("execve", "exit", "exit_group", "restart_syscall", "rt_sigreturn")
# What a start does between a filter that is loaded early, for want of no_new_privs, and execve
EARLY = tuple(
    """capget capset chdir close_range fchdir fcntl futex getcwd getgroups getpid getppid getresgid getresuid
    ioctl landlock_restrict_self openat openat2 ppoll prctl read readlinkat setgroups setresgid setresuid statx
    write""".split()
)
ROUNDS = 12
EPHEMERAL = range(32768, 61000)  # net.ipv4.ip_local_port_range, as it is in every new network namespace
EPERM = Action("errno", 1)


class Recording(Value):
    """What a program needed. ``calls``: names of system calls; ``arches``: whose; ``capabilities``: the bounding set;
    ``maybe``: those that a call may have needed, left out and tried first; ``rights``: path -> Landlock's rights over
    it, as rows; ``bind`` and ``connect``: TCP ports. ``wish``: the spec it was recorded with. ``runs``: how often it
    was run; ``returncode``: how it ended."""

    wish: Spec
    calls: tuple[str, ...]
    arches: tuple[str, ...]
    capabilities: tuple[str, ...]
    maybe: tuple[str, ...]
    rights: tuple[tuple[str, tuple[str, ...]], ...]
    bind: tuple[int, ...]
    connect: tuple[int, ...]
    returncode: int
    runs: int = 1
    landlocked: bool = True

    @property
    def filter(self) -> SeccompFilter:
        """The filter: the rules of the one it was recorded under, for ``calls`` alone; anything else is EPERM.

        Raises SpecError where those rules are not known (a program of bytes).
        """
        from minictr.features.filters import SeccompFilter

        judge = FilterJudge(self.wish, self.wish)
        early = () if "no_new_privs" in self.wish.names else EARLY
        names = tuple(sorted({*self.calls, *ALWAYS, *early}))
        if self.wish.get("seccomp") is None:
            return SeccompFilter(EPERM, (Rule(names, ALLOW),), self.arches, name="recorded", lenient=True)
        base = judge.filter("")
        if base is None:
            raise SpecError("record: the filter is a program whose rules are not known: give a profile or a policy")
        plain = tuple(name for name in names if not base.cases(name))
        rules = [Rule(plain, base.otherwise)] if plain else []
        for rule in base.rules:
            left = tuple(name for name in rule.names if name in names)
            rules += [rule.replace(names=left)] if left else []
        return SeccompFilter(EPERM, tuple(rules), self.arches, name="recorded", lenient=True, flags=base.flags)

    @property
    def landlock(self) -> Landlock | None:
        """Paths and ports; None where the spec has rules of its own, this kernel has none, or the program mounts."""
        if not self.landlocked:
            return None
        ro, rw, rules = rules_of(dict(self.rights))
        known = tuple(ACCESS)
        bind, connect = named(self.bind), named(self.connect)
        return Landlock(ro=ro, rw=rw, rules=rules, access=known, bind=bind, connect=connect)

    @property
    def spec(self) -> Spec:
        """The spec that is confined to what was recorded."""
        wanted: Any = [Seccomp(self.filter, source="recorded"), Capabilities(self.capabilities)]
        if self.landlock is not None:
            wanted.append(self.landlock)
        return self.wish.with_(*wanted)

    def json(self) -> dict[str, Any]:
        """As an OCI config.json with the parts that were recorded; ``minictr`` holds what OCI has no word for."""
        every = [f"CAP_{name}" for name in self.capabilities]
        landlock = self.landlock
        rows: dict[str, Any] = {"runs": self.runs, "returncode": self.returncode}
        if landlock is not None:
            paths = {"ro": landlock.ro, "rw": landlock.rw, "rules": landlock.rules}
            rows["landlock"] = {**paths, "bind": landlock.bind, "connect": landlock.connect}
        sets = ("bounding", "effective", "permitted")
        return {
            "ociVersion": "1.2.0",
            "process": {"args": self.wish.argv, "capabilities": dict.fromkeys(sets, every)},
            "linux": {"seccomp": self.filter.json()},
            "minictr": rows,
        }

    def features(self) -> tuple[Feature, ...]:
        """The features of a container that is confined to what was recorded."""
        return self.spec.features

    def options(self, path: str) -> list[str]:
        """The options of ``minictr run`` that confine to what was recorded, with the filter in the file PATH."""
        words = ["--security-opt", f"seccomp={path}", "--cap-drop", "ALL"]
        for name in self.capabilities:
            words += ["--cap-add", name]
        landlock = self.landlock
        if landlock is None:
            return words
        for option, paths in (("--ro", landlock.ro), ("--rw", landlock.rw)):
            for path in paths:
                words += [option, path]
        for path, rights in landlock.rules:
            words += ["--landlock-rule", f"path-beneath:{','.join(rights)}:{path}"]
        for option, ports in (("--landlock-bind", landlock.bind), ("--landlock-connect", landlock.connect)):
            for port in () if ports is None else ports or ("none",):
                words += [option, str(port)]
        return words


def named(ports: tuple[int, ...]) -> tuple[int, ...] | None:
    """PORTS for Landlock's rules; None, which leaves them alone, where the kernel chose one: it will be another."""
    return None if any(port in EPHEMERAL for port in ports) else ports


def cases_of(process: Process, wish: Spec) -> list[Case]:
    """What the observer of PROCESS saw, row by row. Raises StepFailed when it was killed, or lost something."""
    observer = process.observer
    assert observer is not None
    seen = observer.seen
    if seen["lost"]:
        raise StepFailed("record the program", 0, cure=f"{seen['lost']} times a thread was not seen: too many at once")
    judge = FilterJudge(wish, observer.spec)
    people, real = seen["people"], seen["real"]
    return [Case(row, people[row["who"]], observer.spec, judge, real) for row in seen["rows"]]


def recorded(process: Process, wish: Spec) -> Recording:
    """What PROCESS, which is over and was observed with ``record``, needed. WISH: its spec as asked for."""
    cases = cases_of(process, wish)
    assert process.observer is not None and process.returncode is not None
    sure: set[str] = set()
    maybe: set[str] = set()
    rights: dict[str, set[str]] = {}
    ports: dict[str, set[int]] = {"bind": set(), "connect": set()}
    for case in cases:
        if case.errno and not (case.call == "connect" and needs.ports_of(case)):
            continue
        for name, certain in needs.capabilities_of(case):
            (sure if certain else maybe).add(name)
        for path, names in needs.rights_over(case):
            rights.setdefault(path, set()).update(names)
        port = needs.ports_of(case)
        if port is not None:
            ports[port[0]].add(port[1])
    seen = process.observer.seen["seen"]
    machine = os.uname().machine
    return Recording(
        wish,
        tuple(sorted({name for _, name in seen})),
        tuple(dict.fromkeys((machine, *(arch for arch, _ in seen)))),
        ordered(sure),
        ordered(maybe - sure),
        rows(rights),
        tuple(sorted(ports["bind"])),
        tuple(sorted(ports["connect"])),
        process.returncode,
        landlocked="landlock" not in wish.names and has_landlock() and not any(map(mounted, cases)),
    )


def mounted(case: Case) -> bool:
    """Whether it changed mounts: nothing in a domain of Landlock's may. landlock(7), "Filesystem topology"."""
    return case.call in MOUNTS and not case.errno


def has_landlock() -> bool:
    """Whether this kernel can deny every right of a file, and TCP ports."""
    from minictr.kernel.landlock_abi import lacking

    try:
        return not lacking(ACCESS, ("bind_tcp", "connect_tcp"))
    except StepFailed:
        return False


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in CAPABILITIES if name in set(names))


def rows(rights: dict[str, set[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((path, tuple(name for name in ACCESS if name in rights[path])) for path in sorted(rights))


def record(wish: Spec, *, once: bool = False, timeout: float | None = None, stdout: Any = None) -> Recording:
    """Run the program of WISH observed, with no input: :meth:`Container.record`.

    Raises CalledProcessError for one that fails, TimeoutExpired after TIMEOUT seconds, and what :func:`verified` does.
    """
    from minictr.errors import CalledProcessError
    from minictr.plan import HOLD
    from minictr.runtime.container import started, supervised
    from minictr.runtime.launch import launch
    from minictr.runtime.observed.start import Observer
    from minictr.runtime.process import DEVNULL
    from minictr.runtime.program import compiled

    def run(spec: Spec, record: bool = False, out: Any = DEVNULL) -> Process:
        program, observer = compiled(spec, HOLD), Observer(spec, record=record)
        supervised(program, None)  # a filter that asks has nobody here to answer

        def start(fds: dict[str, int]) -> Process:
            return launch(program, fds, observer=observer)

        with started(start, DEVNULL, out, None if record else DEVNULL, False, None, None) as process:
            process.wait(timeout)
        return process

    process = run(wish, True, stdout)
    if process.returncode:
        raise CalledProcessError(process.returncode, wish.argv)
    found = recorded(process, wish)
    if once:
        return found.replace(capabilities=ordered((*found.capabilities, *found.maybe)))
    return verified(found, run)


def verified(found: Recording, run: Callable[[Spec], Process]) -> Recording:
    """FOUND, run again by RUN (observed) with what was recorded, and with what was missing added.

    Raises StepFailed when the program does not end as it did at first, though nothing more can be added: it is not the
    same twice, or needs what was not seen.
    """
    for _ in range(ROUNDS):
        try:
            process = run(found.spec)
        except MinictrError as err:
            raise StepFailed("run again with what was recorded", getattr(err, "errno", 0) or 0, cure=str(err)) from err
        more = completed(found, cases_of(process, found.spec))
        if more is None:
            if process.returncode == found.returncode:
                return found.replace(runs=found.runs + 1)
            told = "; ".join(str(denial) for denial in process.denials) or "nothing was denied"
            why = f"it ended with {process.returncode}, at first with {found.returncode} ({told})"
            raise StepFailed("run again with what was recorded", 0, cure=f"{why}: record it with --once")
        found = more.replace(runs=found.runs + 1)
    raise StepFailed("run again with what was recorded", 0, cure=f"something was missing still after {ROUNDS} runs")


def completed(found: Recording, cases: list[Case]) -> Recording | None:
    """FOUND and what it denied in CASES, that its own confinement did not; None when it denied nothing of that."""
    held: Any = found.wish.get("capabilities")
    allowed = CAPABILITIES if held is None else held.bounding
    before = FilterJudge(found.wish, found.wish)
    calls, capabilities = set(found.calls), set(found.capabilities)
    rights = {path: set(names) for path, names in found.rights}
    ports = {"bind": set(found.bind), "connect": set(found.connect)}
    for case in cases:
        why = judged(case)
        if why is None:
            continue
        if why.layer == "seccomp" and before.permits(case.row):
            calls.add(case.call)
        elif why.layer == "capability":
            capabilities.update(name for name in why.cure.split() if name in allowed)
        elif why.layer == "landlock":
            port = needs.ports_of(case)
            if port is not None:
                ports[port[0]].add(port[1])
            for path, names in needs.rights_over(case):
                rights.setdefault(path, set()).update(names)
    made = found.replace(
        calls=tuple(sorted(calls)),
        capabilities=ordered(capabilities),
        rights=rows(rights),
        bind=tuple(sorted(ports["bind"])),
        connect=tuple(sorted(ports["connect"])),
    )
    return None if made == found else made
