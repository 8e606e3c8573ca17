"""The front door's main room: ``Container``, ``run`` and ``popen``."""

from __future__ import annotations

from minictr.errors import SpecError, TimeoutExpired
from minictr.plan import HOLD
from minictr.plan import plan as make_plan
from minictr.runtime.launch import START_TIMEOUT, launch
from minictr.runtime.looks import fingerprint
from minictr.runtime.pipes import Streams
from minictr.runtime.process import DEVNULL, PIPE, Process
from minictr.runtime.program import compiled
from minictr.runtime.resolve import resolve, told_by_fingerprint
from minictr.runtime.result import Result
from minictr.runtime.undo import Undo
from minictr.spec import Spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any, Self

    from minictr.features.filters import SeccompFilter
    from minictr.plan import Plan
    from minictr.runtime.cgroup import Cgroup
    from minictr.runtime.console import Console
    from minictr.runtime.instance import Instance
    from minictr.runtime.notified import Handler
    from minictr.runtime.observed.record import Recording
    from minictr.runtime.program import Program
    from minictr.runtime.supervisor import Supervisor
    from minictr.steps import Feature

CACHED = 32  # compiled programs a container keeps, by argv


class Container:
    """A root file system and the features it is run with; nothing lives until ``run`` or ``popen``.

    ``rootfs``: a directory; "" is the host's own root. ``features``: values, or a profile's name; ``name``: for people.
    Immutable: ``with_``, ``without`` and ``replace`` return new ones.
    """

    def __init__(
        self,
        rootfs: str | os.PathLike[str] = "",
        *,
        features: Iterable[Feature] | str = "default",
        name: str = "",
    ) -> None:
        import os

        if isinstance(features, str):
            from minictr.features.profiles import PROFILES

            if features not in PROFILES:
                raise SpecError(f"profile {features!r} is not one of {', '.join(PROFILES)}")
            features = PROFILES[features]
        self.rootfs = os.fspath(rootfs)
        self.features: tuple[Feature, ...] = tuple(features)
        self.name = name
        self._programs: dict[tuple[str, ...], tuple[tuple[int, ...], Program]] = {}

    def spec(self, args: Sequence[str] = ("true",)) -> Spec:
        """The spec of running ARGS. Raises :class:`SpecError` for a str (a forgotten list) or nothing."""
        if isinstance(args, str) or not args:
            raise SpecError(f"args must be a list of strings, not {args!r}")
        return Spec(tuple(map(str, args)), self.features, self.rootfs, self.name)

    def plan(self, args: Sequence[str] = ("true",)) -> Plan:
        """Every kernel operation of running ARGS, in order, before any is done."""
        return make_plan(resolve(self.spec(args)))

    def with_(self, *features: Feature) -> Self:
        """With FEATURES added, or put in the place of those of the same name."""
        return self.replace(features=self.spec().with_(*features).features)

    def without(self, *features: Feature | str) -> Self:
        """Without these features (values or names), and without what cannot stand when they are gone: ``net`` takes
        the loopback and the network's sysctls along."""
        return self.replace(features=self.spec().without(*features, cascade=True).features)

    def replace(self, **changes: Any) -> Self:
        """With another ``rootfs``, ``features`` or ``name``."""
        return type(self)(**{"rootfs": self.rootfs, "features": self.features, "name": self.name, **changes})

    def popen(
        self,
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
        cgroup: Cgroup | None = None,
        on_syscall: Handler | None = None,
        explain_denials: bool = False,
    ) -> Process:
        """Start ARGS and return its :class:`Process` once it runs.

        ``stdin``, ``stdout``, ``stderr``: None (the caller's), PIPE, DEVNULL, a descriptor or a file.
        ``start_timeout``: seconds until a start that hangs is given up (:class:`StartTimeout`). ``cgroup``: groups of
        the caller's that it is started in, beside those of its own features; they stay when it is over.
        ``on_syscall``: a function that is given each call (:class:`Syscall`) that the filter says ``notify`` of, and
        returns a number, ``mc.Errno(...)`` or ``mc.CONTINUE``; in a thread, up to 16 at once.
        ``explain_denials``: it is traced, and its ``denials`` tell what it was denied and why; each of its system calls
        takes some 20 us longer then (docs/features/denials.md).
        """
        if cgroup is not None:
            from minictr.features.join import Groups

            rows = tuple(
                (name, place.version, place.directory, place.directory.removeprefix(place.mount))
                for name, place in cgroup.places.items()
            )
            self = self.with_(Groups(rows))
        options: dict[str, Any] = {"start_timeout": start_timeout, "console": console}
        if explain_denials:
            from minictr.runtime.observed.start import Observer

            spec = self.spec(args)
            program, options["observer"] = compiled(spec, HOLD), Observer(spec)
        else:
            program = self._program(args)
        options["supervisor"] = supervised(program, on_syscall)

        def start(fds: dict[str, int]) -> Process:
            return launch(program, fds, preserve_fds=preserve_fds, **options)

        return started(start, stdin, stdout, stderr, text, encoding, errors)

    def _program(self, args: Sequence[str]) -> Program:
        """The compiled plan of running ARGS. Kept while what was looked at in the root is as it was: then only
        descriptors change from start to start."""
        key = (args,) if isinstance(args, str) else tuple(args)
        kept = self._programs.get(key)
        if kept is not None and kept[0] and kept[0] == fingerprint(self.rootfs):
            return kept[1]
        spec = self.spec(args)
        seen = fingerprint(self.rootfs) if told_by_fingerprint(spec) else ()
        program = compiled(spec)
        if len(self._programs) >= CACHED:
            self._programs.clear()
        self._programs[key] = (seen, program)
        return program

    def run(
        self,
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
        """Run ARGS to the end, as :func:`subprocess.run` does.

        After ``timeout`` seconds the container is killed and :class:`TimeoutExpired` raised (its ``result`` says the
        rest). ``check``: raise :class:`CalledProcessError` for a non-zero end. Other options are :meth:`popen`'s.
        """
        how = (input, capture_output, timeout, check, text, encoding, errors)
        return to_the_end(lambda **streams: self.popen(args, **{**options, **streams}), *how)

    def start(self, args: Sequence[str], **options: Any) -> Instance:
        """Run ARGS in the background: a container that outlives this process, with a monitor and a log.

        OPTIONS: those of :func:`minictr.runtime.kept.keep`: ``interactive``, ``remove``, ``log_size``, ``log_files``,
        ``stop_signal``, ``stop_timeout``, ``accounting``, ``root``. The container's ``name`` is taken for it alone.
        """
        from minictr.runtime.kept import keep

        return keep(self.spec(args), held=False, **options)

    def create(self, args: Sequence[str], **options: Any) -> Instance:
        """As :meth:`start`, set up to just before ARGS: :meth:`Instance.start` lets it go."""
        from minictr.runtime.kept import keep

        return keep(self.spec(args), held=True, **options)

    def record(self, args: Sequence[str], **options: Any) -> Recording:
        """Run ARGS observed, and again with just what it needed, until nothing is missing: the least that it needs.

        OPTIONS: ``once``, ``timeout`` in seconds for each run, ``stdout``, as
        :func:`minictr.runtime.observed.record.record`. Its input is empty.
        """
        from minictr.runtime.observed.record import record

        return record(self.spec(args), **options)

    async def run_async(self, args: Sequence[str], **options: Any) -> Result:
        """:meth:`run` for asyncio: waits for the pidfd in the event loop."""
        from minictr.runtime.asynchronous import run_async

        return await run_async(self, args, **options)

    def __repr__(self) -> str:
        return (
            f"Container({self.rootfs!r}, features=<{len(self.features)}>{f', name={self.name!r}' if self.name else ''})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Container) and (self.rootfs, self.features, self.name) == (
            other.rootfs,
            other.features,
            other.name,
        )

    def __hash__(self) -> int:
        return hash((self.rootfs, self.features, self.name))


def supervised(program: Program, on_syscall: Handler | None) -> Supervisor | None:
    """Who answers for PROGRAM's filter, if it asks. SpecError where it asks and nobody answers, or the reverse."""
    if on_syscall is None and "listener" not in program.fd_names:
        return None
    from minictr.runtime.supervisor import supervisor_of

    return supervisor_of(program, on_syscall)


def started(
    start: Callable[[dict[str, int]], Process],
    stdin: Any,
    stdout: Any,
    stderr: Any,
    text: bool,
    encoding: str | None,
    errors: str | None,
) -> Process:
    """What START makes of the program's standard streams, with our ends of them."""
    with Undo() as closing:
        streams = Streams(stdin, stdout, stderr, closing)
        try:
            process = start(streams.fds)
            try:
                streams.hand_over(process, text or bool(encoding or errors), encoding, errors)
            except BaseException:
                process.close()
                raise
        except BaseException:
            streams.close()
            raise
    return process


def to_the_end(
    popen: Callable[..., Process],
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    text: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
) -> Result:
    """Start by POPEN, which is told what streams must be pipes; feed and read them, wait: see :meth:`Container.run`."""
    data, timed_out = encoded(input, encoding, errors), False
    with popen(**piped(input, capture_output)) as process:
        try:
            captured = process.communicate(data, timeout)
        except TimeoutExpired:
            timed_out = True
            captured = process.end()
    as_text = text or bool(encoding or errors)
    result = Result.of(process, captured, as_text, encoding, errors, timed_out=timed_out)
    return result.judged(timeout, check)


def piped(input: Any, capture_output: bool) -> dict[str, int]:
    """The streams that INPUT and CAPTURE_OUTPUT make pipes."""
    streams = {"stdin": PIPE} if input is not None else {}
    return {**streams, "stdout": PIPE, "stderr": PIPE} if capture_output else streams


def encoded(input: Any, encoding: str | None, errors: str | None) -> Any:
    """INPUT as bytes."""
    return input.encode(encoding or "utf-8", errors or "strict") if isinstance(input, str) else input


def _container(
    rootfs: Any,
    features: Any,
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: str | None,
    seccomp: SeccompFilter | str | None,
) -> Container:
    """The container that ``run`` and ``popen`` describe: without a root and features, the program simply runs."""
    container = Container(rootfs, features=("default" if rootfs else ()) if features is None else features)
    extra: list[Feature] = []
    if env is not None:
        from minictr.features.process import Env

        extra.append(Env(tuple(env.items())))
    if cwd is not None:
        from minictr.features.process import Cwd

        extra.append(Cwd(cwd))
    if user is not None:
        from minictr.features.users import Identity

        extra.append(Identity(user))
    if seccomp is not None:
        from minictr.features.seccomp import Seccomp

        extra.append(Seccomp(seccomp))
    return container.with_(*extra) if extra else container


def run(
    args: Sequence[str],
    *,
    rootfs: str | os.PathLike[str] = "",
    features: Iterable[Feature] | str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    seccomp: SeccompFilter | str | None = None,
    **options: Any,
) -> Result:
    """Run ARGS: :meth:`Container.run` on a container made on the spot.

    Without ``rootfs`` and ``features`` nothing is contained: the program runs on the host, as subprocess would run it.
    ``seccomp``: a filter, or the name of a policy.
    """
    return _container(rootfs, features, env, cwd, user, seccomp).run(args, **options)


async def run_async(
    args: Sequence[str],
    *,
    rootfs: str | os.PathLike[str] = "",
    features: Iterable[Feature] | str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    user: str | None = None,
    seccomp: SeccompFilter | str | None = None,
    **options: Any,
) -> Result:
    """:func:`run` for asyncio."""
    return await _container(rootfs, features, env, cwd, user, seccomp).run_async(args, **options)


__all__ = ["DEVNULL", "PIPE", "Container", "Result", "run", "run_async"]
